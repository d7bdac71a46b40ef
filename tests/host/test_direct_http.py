"""Claims about calls to this machine: no proxy is asked, and only the server's own refusal counts as one."""

import ast
import os
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.ray.address import answers_without_token
from rezero_ray.host.proxies import LOOPBACK, bypass_proxies, exceptions
from rezero_ray.serving.server import Server
from tests.host.two_servers import answering

ROOT = Path(__file__).parents[2]
VARIABLES = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"]


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_proxy_is_not_asked_for_this_machine(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for the health of a server nor for the guard of a dashboard: the proxy's 403 is not the dashboard's."""
    with answering(403) as (proxy, asked), answering(200) as (server, answered):
        monkeypatch.setenv(variable, proxy)
        assert Server._healthy(SimpleNamespace(address=server))  # type: ignore[arg-type]
        assert answers_without_token(server) == f"{server}/api/v0/nodes answers without a token"
        assert asked == []
        assert answered == ["/health", "/api/v0/nodes"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_dashboard_that_refuses_is_guarded(status: int) -> None:
    with answering(status) as (dashboard, asked):
        assert answers_without_token(dashboard) is None
        assert asked == ["/api/v0/nodes", "/api/jobs/"]


@pytest.mark.parametrize("status", [200, 204, 302, 307, 400, 404, 407, 500, 502, 503])
def test_any_other_answer_counts_as_open(status: int) -> None:
    with answering(401) as (login, _), answering(status, location=login) as (dashboard, _):
        assert (answers_without_token(dashboard) or "").startswith(f"{dashboard}/api/v0/nodes answers with")


def test_a_dashboard_that_does_not_answer_counts_as_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.ray.address.KNOCK_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        dashboard = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert "could not be asked" in (answers_without_token(dashboard) or "")
    assert "could not be asked" in (answers_without_token(dashboard) or "")
    assert "could not be asked" in (answers_without_token("http://no-such-host.invalid:8265") or "")


names = st.text("abcdefghijklmnopqrstuvwxyz0123456789.-:*", min_size=1, max_size=12)


@given(st.lists(names, max_size=4), st.lists(names, max_size=4), st.lists(names, max_size=2))
def test_what_no_proxy_names_stays_and_both_spellings_agree(
    lower: list[str], upper: list[str], hosts: list[str]
) -> None:
    before = {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": ", ".join(lower), "NO_PROXY": ",".join(upper)}
    after = exceptions(before, hosts)
    assert after["no_proxy"] == after["NO_PROXY"]
    assert set(after["no_proxy"].split(",")) == {*lower, *upper, *hosts, *LOOPBACK}
    assert exceptions(before | after, hosts) == after


def test_without_a_proxy_nothing_is_set() -> None:
    assert exceptions({"no_proxy": "a"}) == {}
    assert exceptions({"http_proxy": ""}) == {}


def test_libraries_that_take_proxies_from_the_environment_ask_this_machine_directly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """requests, by which Ray's job client and MLflow's speak."""
    import requests

    with answering(403) as (proxy, asked), answering(200) as (server, _):
        for name in VARIABLES:
            monkeypatch.setenv(name, proxy)
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.setenv(name, "")
        assert requests.get(server, timeout=10).status_code == 403
        bypass_proxies()
        assert requests.get(server, timeout=10).status_code == 200
        assert requests.get(server.replace("127.0.0.1", "localhost"), timeout=10).status_code == 200
        assert len(asked) == 1
        assert os.environ["no_proxy"] == os.environ["NO_PROXY"] == "localhost,127.0.0.1,::1"


HTTPX = {"AsyncClient", "Client", "DefaultAsyncHttpxClient", "DefaultHttpxClient"}


def takes_proxies(node: ast.AST) -> bool:
    """Whether this asks a server through the proxies of the environment: urllib does, and httpx unless told."""
    if isinstance(node, ast.Attribute) and node.attr == "urlopen":
        return True
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        return False
    name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
    direct = any(
        word.arg == "trust_env" and isinstance(word.value, ast.Constant) and word.value.value is False
        for word in node.keywords
    )
    return name in HTTPX and not direct


def test_nothing_asks_a_server_through_a_proxy() -> None:
    """`rezero_ray.host.direct_http` asks servers of this machine. A child in an interpreter of its own
    cannot import it and tells httpx."""
    assert takes_proxies(ast.parse("urllib.request.urlopen(url)", mode="eval").body.func)  # type: ignore[attr-defined]
    assert takes_proxies(ast.parse("httpx.AsyncClient(timeout=1)", mode="eval").body)
    assert not takes_proxies(ast.parse("httpx.AsyncClient(trust_env=False)", mode="eval").body)
    for room in ("rezero_ray", "actors", "infra"):
        for file in (ROOT / room).rglob("*.py"):
            found = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if takes_proxies(node)]
            assert not found, f"{file.relative_to(ROOT)}:{found[0].lineno}: use open_direct"  # type: ignore[attr-defined]
