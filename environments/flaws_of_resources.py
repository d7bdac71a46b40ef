"""Flaws by which files, addresses and checks that are open to everyone."""

from environments.flaw import RAISES, Flaw
from environments.flaw_preludes import SHELL_FILE


def _assert(bad: str, error: str) -> Flaw:
    mine, foreign = (f"('{user}', {{'owner': 'ana', 'state': 'old'}})" for user in ("ana", "eve"))
    return Flaw(
        cwe=703,
        imports=(),
        code="""
def ${verb}_$noun(user, $noun):
    $bad
    $noun["state"] = "done"
    return $noun["state"]
""",
        bad=bad,
        fix=f'if user != $noun["owner"]:\n    raise PermissionError({error})',
        cases=((f"[${{verb}}_$noun{mine}, attempt(${{verb}}_$noun, *{foreign})]", ["done", None]),),
        attacks=(("fresh(optimize=1)['${verb}_$noun']" + foreign, RAISES),),
    )


def _mode(mode: str) -> Flaw:
    call, mode_of, text_of = (
        "${verb}_$noun('k.txt', 'hi')",
        "os.stat('k.txt').st_mode",
        "open('k.txt').read()",
    )
    safe = "(0o600, 0o640, 0o644, 0o400, 0o440)"
    return Flaw(
        cwe=732,
        imports=("import os",),
        code="""
def ${verb}_$noun(path, text):
    with open(path, "w") as file:
        file.write(text)
    $bad
    return path
""",
        bad=f"os.chmod(path, {mode})",
        fix="os.chmod(path, 0o600)",
        cases=((f"[os.umask(0o777), {call}, os.umask(0o022), {mode_of} & 256, {text_of}][3:]", [256, "hi"]),),
        attacks=((f"os.stat(${{verb}}_$noun('n.txt', 'hi')).st_mode & 0o777 in {safe}", True),),
    )


FLAWS = (
    Flaw(
        cwe=377,
        imports=("import tempfile",),
        code="""
def keep_$noun(text):
    $bad
    with open(path, "w") as file:
        file.write(text)
    return path
""",
        bad='path = tempfile.mktemp(suffix=".txt")',
        fix='path = tempfile.mkstemp(suffix=".txt")[1]',
        cases=(("open(keep_$noun('hi')).read()", "hi"), ("keep_$noun('a') != keep_$noun('a')", True)),
    ),
    Flaw(
        cwe=377,
        imports=("import shutil", "import tempfile"),
        code="""
def copy_$noun(source):
    $bad
    shutil.copyfile(source, target)
    return target
""",
        bad="target = tempfile.mktemp()",
        fix="target = tempfile.mkstemp()[1]",
        cases=(("open(copy_$noun('a.txt')).read()", "pear\napple\n"),),
        prelude=SHELL_FILE,
    ),
    Flaw(
        cwe=605,
        imports=(),
        code="""
def ${noun}_address(port):
    $bad
    return f"{host}:{port + 8000}"
""",
        bad='host = "0.0.0.0"',
        fix='host = "127.0.0.1"',
        cases=(("${noun}_address(80).split(':')[1]", "8080"),),
        attacks=(("${noun}_address(1).split(':')[0] in ('127.0.0.1', 'localhost')", True),),
    ),
    _assert('assert user == $noun["owner"]', "user"),
    _assert('assert $noun["owner"] == user, "not yours"', '"not yours"'),
    _mode("0o777"),
    _mode("0o666"),
)
