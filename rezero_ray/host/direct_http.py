"""HTTP without a proxy in between, for servers on this machine and for the cluster's own dashboard.

Proxy variables are meant for the internet. A proxy that is asked for a loopback address answers for itself, and its
403 looks like the server's own. Redirections are not followed: their answer would be another server's.
"""

import urllib.error
import urllib.request
from typing import Any

REFUSED = (401, 403)
"""What a server answers that wants a token."""


class _NoRedirection(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirection)


def open_direct(request: str | urllib.request.Request, *, seconds: float) -> Any:
    """The server's own answer, a context with `status` and `read`.

    Raises:
        HTTPError: the server answers with another status than 2xx.
        OSError: it cannot be reached, or does not answer within `seconds`.
    """
    return _opener.open(request, timeout=seconds)


def why_open(address: str, *, seconds: float) -> str | None:
    """Why the address must be taken for open to anybody; None where the server itself refuses (401 or 403).

    A check that cannot be carried out proves nothing: no answer, a redirection or an error of the server count as
    open.
    """
    try:
        with open_direct(address, seconds=seconds):
            return "answers without a token"
    except urllib.error.HTTPError as error:
        error.close()
        if error.code in REFUSED:
            return None
        return f"answers with status {error.code}, which says nothing of a token"
    except (OSError, ValueError) as error:
        return f"could not be asked whether it wants a token ({error})"
