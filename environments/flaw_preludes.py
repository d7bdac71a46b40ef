"""What stands in the sandbox before a program is loaded: files, a database, a stand-in for the network.

Each is Python source, run with `os`, `sqlite3`, `sys` and `tarfile` imported.
"""

SHELL_FILE = 'open("a.txt", "w").write("pear\\napple\\n")'

TABLE = """
db = sqlite3.connect(":memory:")
db.execute("CREATE TABLE ${noun}s (id INTEGER, name TEXT)")
db.executemany("INSERT INTO ${noun}s VALUES (?, ?)", [(1, "Ana"), (2, "Ben"), (3, "Ana")])
"""

TAR_FILES = """
for folder in ("in", "o1", "o2/d"):
    os.makedirs(folder)
open("in/a.txt", "w").write("a")
with tarfile.open("good.tar", "w") as tar:
    tar.add("in/a.txt", "a.txt")
with tarfile.open("bad.tar", "w") as tar:
    tar.add("in/a.txt", "../evil.txt")
"""

WEB = """
class requests:
    calls = []

    class Answer:
        text, status_code, ok = "fine", 200, True

        def raise_for_status(self):
            return None

    def request(method, url, **options):
        requests.calls.append((method, url, options))
        return requests.Answer()

    def get(url, **options):
        return requests.request("get", url, **options)

    def post(url, **options):
        return requests.request("post", url, **options)

sys.modules["requests"] = requests
"""
