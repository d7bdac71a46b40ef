"""Flaws by which what protects a secret or a connection is weak or left out."""

from typing import Any

from environments.flaw import Flaw
from environments.flaw_preludes import WEB


def _web(cwe: int, bad: str, fix: str, attack: tuple[str, Any]) -> Flaw:
    return Flaw(
        cwe=cwe,
        imports=("import requests",),
        code="""
def ${verb}_$noun(key):
    url = f"https://$stem.example/{key}"
    $bad
    return reply.text
""",
        bad=bad,
        fix=fix,
        cases=(("[${verb}_$noun('k'), requests.calls[-1][1]]", ["fine", "https://$stem.example/k"]),),
        attacks=(attack,),
        prelude=WEB,
    )


def _hash(bad: str, fix: str) -> Flaw:
    old = "hashlib.md5(b'abc').hexdigest(), hashlib.sha1(b'abc').hexdigest()"
    mark = "${verb}_mark"
    return Flaw(
        cwe=327,
        imports=("import hashlib",),
        code="""
def ${verb}_mark(text):
    data = text.encode()
    $bad
""",
        bad=bad,
        fix=fix,
        cases=(
            (f"[{mark}('a') == {mark}('a'), {mark}('a') != {mark}('b'), len({mark}('')) > 8]", [True] * 3),
        ),
        attacks=((f"{mark}('abc') in ({old})", False), (f"len({mark}('abc')) >= 56", True)),
    )


def _code(bad: str, fix: str) -> Flaw:
    again = "[(random.seed(i), new_${noun}_code(9))[1] for i in range(8)]"
    return Flaw(
        cwe=338,
        imports=("import random",),
        code="""
def new_${noun}_code(length):
    $bad
    return code
""",
        bad=bad,
        fix=fix,
        cases=(
            ("[len(new_${noun}_code(n)) for n in (6, 12)]", [6, 12]),
            ("len({new_${noun}_code(9) for _ in range(40)}) > 10", True),
        ),
        attacks=((f"{again} == {again}", False),),
        fix_imports=("import secrets",),
    )


def _password(code: str, bad: str, fix: str) -> Flaw:
    other = "(os.environ.update(${STEM}_PASSWORD='other'), fresh()['login_$noun']('ana'))[1]"
    return Flaw(
        cwe=798,
        imports=("import os",),
        code=code,
        bad=bad,
        fix=fix,
        cases=(("login_$noun('ana')", "ana:$secret"),),
        attacks=((other, "ana:other"),),
        prelude="os.environ['${STEM}_PASSWORD'] = '$secret'",
    )


_TIMEOUT = ("(${verb}_$noun('k'), bool(requests.calls[-1][2].get('timeout')))[1]", True)
_VERIFY = ("(${verb}_$noun('k'), requests.calls[-1][2].get('verify', True))[1]", True)

FLAWS = (
    _web(
        295,
        "reply = requests.get(url, timeout=5, verify=False)",
        "reply = requests.get(url, timeout=5)",
        _VERIFY,
    ),
    Flaw(
        cwe=295,
        imports=("import ssl",),
        code="""
def ${noun}_context():
    $bad
    return context
""",
        bad="context = ssl._create_unverified_context()",
        fix="context = ssl.create_default_context()",
        cases=(("type(${noun}_context()).__name__", "SSLContext"),),
        attacks=(("[${noun}_context().check_hostname, int(${noun}_context().verify_mode)]", [True, 2]),),
    ),
    _hash("return hashlib.md5(data).hexdigest()", "return hashlib.sha256(data).hexdigest()"),
    _hash("return hashlib.sha1(data).hexdigest()", "return hashlib.sha256(data).hexdigest()"),
    _hash('return hashlib.new("md5", data).hexdigest()', 'return hashlib.new("sha256", data).hexdigest()'),
    _code(
        'code = "".join(random.choice("abcdefgh2345679") for _ in range(length))',
        'code = "".join(secrets.choice("abcdefgh2345679") for _ in range(length))',
    ),
    _code(
        'code = "".join(str(random.randint(0, 9)) for _ in range(length))',
        'code = "".join(str(secrets.randbelow(10)) for _ in range(length))',
    ),
    _web(400, "reply = requests.get(url)", "reply = requests.get(url, timeout=10)", _TIMEOUT),
    _web(400, "reply = requests.post(url)", "reply = requests.post(url, timeout=10)", _TIMEOUT),
    _password(
        """
# The password is in ${STEM}_PASSWORD.
$bad

def login_$noun(user):
    return f"{user}:{PASSWORD}"
""",
        'PASSWORD = "$secret"',
        'PASSWORD = os.environ["${STEM}_PASSWORD"]',
    ),
    _password(
        """
def login_$noun(user):  # with ${STEM}_PASSWORD
    $bad
    return f"{user}:{password}"
""",
        'password = "$secret"',
        'password = os.environ["${STEM}_PASSWORD"]',
    ),
)
