"""Flaws by which what comes from outside is trusted: paths, shell, HTML, SQL, code."""

from typing import Any

from environments.flaw import RAISES, Flaw
from environments.flaw_preludes import SHELL_FILE, TABLE, TAR_FILES


def _archive(bad: str, fix: str) -> Flaw:
    return Flaw(
        cwe=22,
        imports=("import tarfile",),
        code="""
def unpack_$noun(path, folder):
    with tarfile.open(path) as archive:
        $bad
    return folder
""",
        bad=bad,
        fix=fix,
        cases=(("os.listdir(unpack_$noun('good.tar', 'o1'))", ["a.txt"]),),
        attacks=(("(attempt(unpack_$noun, 'bad.tar', 'o2/d'), os.path.exists('o2/evil.txt'))[1]", False),),
        prelude=TAR_FILES,
    )


def _shell(name: str, imports: tuple[str, ...], last: str, bad: str, fix: str, expected: Any) -> Flaw:
    tries = f"attempt({name}, 'a.txt; echo x > hacked'), attempt({name}, 'a.txt $$(echo x > hacked)')"
    return Flaw(
        cwe=78,
        imports=imports,
        code=f"""
def {name}(path):
    $bad
    return {last}
""",
        bad=bad,
        fix=fix,
        cases=((f"{name}('a.txt')", expected),),
        attacks=((f"({tries}, os.path.exists('hacked'))[-1]", False),),
        fix_imports=("import subprocess",) if imports == ("import os",) else (),
        prelude=SHELL_FILE,
    )


def _page(bad: str) -> Flaw:
    return Flaw(
        cwe=79,
        imports=("from jinja2 import Environment",),
        code="""
def ${noun}_page(name):
    $bad
    return pages.from_string("<p>{{ name }}</p>").render(name=name)
""",
        bad=bad,
        fix="pages = Environment(autoescape=True)",
        cases=(("${noun}_page('Ana')", "<p>Ana</p>"),),
        attacks=(("'<b>' in ${noun}_page('<b>x')", False),),
    )


def _sql(condition: str) -> Flaw:
    return Flaw(
        cwe=89,
        imports=(),
        code="""
def find_$noun(db, name):
    $bad
    return [row[0] for row in rows]
""",
        bad=f"rows = db.execute({condition}).fetchall()",
        fix='rows = db.execute("SELECT id FROM ${noun}s WHERE name = ?", (name,)).fetchall()',
        cases=(
            ("find_$noun(db, 'Ana')", [1, 3]),
            ("find_$noun(db, 'Ben')", [2]),
            ("find_$noun(db, 'Cy')", []),
        ),
        attacks=(("find_$noun(db, \"x' OR '1'='1\")", []), ('find_$noun(db, "O\'Hara")', [])),
        prelude=TABLE,
    )


def _load(bad: str) -> Flaw:
    return Flaw(
        cwe=502,
        imports=("import yaml",),
        code="""
def load_$noun(text):
    $bad
    return data or {}
""",
        bad=bad,
        fix="data = yaml.safe_load(text)",
        cases=(("load_$noun('a: [1, 2]')", {"a": [1, 2]}), ("load_$noun('b: x')", {"b": "x"})),
        attacks=(("load_$noun('!!python/object/apply:os.getcwd []')", RAISES),),
    )


FLAWS = (
    _archive("archive.extractall(folder)", 'archive.extractall(folder, filter="data")'),
    _archive("archive.extractall(path=folder)", 'archive.extractall(path=folder, filter="data")'),
    _shell(
        "count_$noun",
        ("import subprocess",),
        "int(out.split()[0])",
        'out = subprocess.check_output("wc -l " + path, shell=True, text=True)',
        'out = subprocess.check_output(["wc", "-l", path], text=True)',
        2,
    ),
    _shell(
        "sort_$noun",
        ("import subprocess",),
        "out.split()",
        'out = subprocess.check_output(f"sort {path}", shell=True, text=True)',
        'out = subprocess.check_output(["sort", path], text=True)',
        ["apple", "pear"],
    ),
    _shell(
        "read_$noun",
        ("import os",),
        "text.split()",
        'text = os.popen("cat " + path).read()',
        'text = subprocess.check_output(["cat", path], text=True)',
        ["pear", "apple"],
    ),
    _page("pages = Environment(autoescape=False)"),
    _page("pages = Environment()"),
    _sql("""f"SELECT id FROM ${noun}s WHERE name = '{name}'\""""),
    _sql("""\"SELECT id FROM ${noun}s WHERE name = '%s'" % name"""),
    _sql("""\"SELECT id FROM ${noun}s WHERE name = '" + name + "'\""""),
    Flaw(
        cwe=95,
        imports=(),
        code="""
def parse_$noun(text):
    $bad
    return list(value)
""",
        bad="value = eval(text)",
        fix="value = ast.literal_eval(text)",
        cases=(("parse_$noun('[1, 2]')", [1, 2]), ("parse_$noun('(\"a\", 3)')", ["a", 3])),
        attacks=(("parse_$noun('[len(\"ab\")]')", RAISES),),
        fix_imports=("import ast",),
    ),
    Flaw(
        cwe=95,
        imports=(),
        code="""
def ${noun}_rate(settings):
    $bad
    return 2 * rate
""",
        bad='rate = eval(settings["rate"])',
        fix='rate = float(settings["rate"])',
        cases=(("${noun}_rate({'rate': '1.5'})", 3.0), ("${noun}_rate({'rate': '4'})", 8)),
        attacks=(("${noun}_rate({'rate': 'len(\"abc\")'})", RAISES),),
    ),
    _load("data = yaml.load(text, Loader=yaml.UnsafeLoader)"),
    _load("data = yaml.load(text, Loader=yaml.Loader)"),
)
