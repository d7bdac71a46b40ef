"""What happens in a log window: seven kinds of attack, and ordinary traffic that looks like each of them.

An episode is a list of events (seconds, text without number and time), made from a `Scene`. Where only the
list of approved hosts tells an attack from its look-alike, both come from the same function with another
actor; else the lines themselves differ in the way that the look-alike's docstring says.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from environments.shared.word_lists import first_name

Event = tuple[float, str]


@dataclass(frozen=True)
class Scene:
    """The names of one window. Outside names end in `.example`; `known` maps a role to its approved name."""

    hosts: tuple[str, ...]
    outside: tuple[str, ...]
    known: Mapping[str, str]


Episode = Callable[[random.Random, Scene], list[Event]]

ROLES = ("scanner", "backup", "monitor", "admin")
"""Roles that every window names a host for; the backup is an outside one."""

ODD_PORTS = (21, 23, 25, 111, 135, 139, 512, 1433, 3306, 5900, 6379)
FULL_SERVICES = ("https", "smb", "ldap", "ipp", "dns", "ntp", "imap")
LOGIN_SERVICES = ("ssh", "rdp", "vpn")
ASSETS = ("img", "css", "js", "fonts", "api", "video", "maps")
ODD_LETTERS = "bcdfghjkqvwxz23456789"


def _spaced(rng: random.Random, bodies: list[str], low: float, high: float) -> list[Event]:
    """The bodies one after another, each `low` to `high` seconds after the one before."""
    events, now = [], 0.0
    for body in bodies:
        events.append((now, body))
        now += rng.uniform(low, high)
    return events


def _count(rng: random.Random) -> int:
    return rng.choice((3, 4, 4, 5))


def _odd_name(rng: random.Random, length: int) -> str:
    return "".join(rng.choice(ODD_LETTERS) for _ in range(length))


def _probes(rng: random.Random, scene: Scene, actor: str) -> list[Event]:
    ports = rng.sample(ODD_PORTS, _count(rng))
    targets = list(scene.hosts[1 : len(ports) + 1])
    if rng.random() < 0.5:
        targets = targets[:1] * len(ports)
    else:
        ports = ports[:1] * len(targets)
    outcome = [rng.choice(("refused", "refused", "no-reply")) for _ in ports]
    lines = [f"{actor}>{t} tcp/{p} {o}" for t, p, o in zip(targets, ports, outcome, strict=True)]
    return _spaced(rng, lines, 0.2, 1.2)


def scan(rng: random.Random, scene: Scene) -> list[Event]:
    return _probes(rng, scene, scene.hosts[0])


def approved_scan(rng: random.Random, scene: Scene) -> list[Event]:
    """The same probes by the approved scanner."""
    return _probes(rng, scene, scene.known["scanner"])


def busy_server(rng: random.Random, scene: Scene) -> list[Event]:
    """One host uses several services of one server, as a scan does, and each answers with data."""
    services = rng.sample(FULL_SERVICES, _count(rng))
    user, server = scene.hosts[:2]
    return _spaced(rng, [f"{user}>{server} {service} {_small(rng)}" for service in services], 0.2, 1.2)


def brute_force(rng: random.Random, scene: Scene) -> list[Event]:
    """At least four failures in seconds, of one account or of many."""
    service, (source, target), count = rng.choice(LOGIN_SERVICES), scene.hosts[:2], rng.choice((4, 4, 5))
    names = [first_name(rng).lower()] * count if rng.random() < 0.5 else _accounts(rng, count)
    return _spaced(rng, [f"{source}>{target} {service} fail {name}" for name in names], 0.3, 1.3)


def mistyped_password(rng: random.Random, scene: Scene) -> list[Event]:
    """Two or three failures of one account, at the pace of a person, and then it gets in."""
    service, (source, target), name = rng.choice(LOGIN_SERVICES), scene.hosts[:2], first_name(rng).lower()
    outcomes = [*["fail"] * rng.choice((2, 2, 3)), "ok"]
    return _spaced(rng, [f"{source}>{target} {service} {o} {name}" for o in outcomes], 8, 25)


def morning_rush(rng: random.Random, scene: Scene) -> list[Event]:
    """Several people log in from their own hosts; one of them mistypes."""
    service, count = rng.choice(LOGIN_SERVICES), rng.choice((3, 4))
    users = list(zip(scene.hosts[1 : count + 1], _accounts(rng, count), strict=True))
    lines = [f"{host}>{scene.hosts[0]} {service} ok {name}" for host, name in users]
    slip = rng.randrange(count)
    lines.insert(slip, lines[slip].replace(" ok ", " fail "))
    return _spaced(rng, lines, 2, 9)


def tunnel(rng: random.Random, scene: Scene) -> list[Event]:
    """One host asks for long made-up names, all below one domain."""
    kind, source, domain = rng.choice(("TXT", "TXT", "A")), scene.hosts[0], scene.outside[0]
    names = [_odd_name(rng, rng.randint(8, 9)) for _ in range(_count(rng))]
    return _spaced(rng, [f"{source}>dns {kind} {name}.{domain}" for name in names], 0.3, 2)


def page_with_many_parts(rng: random.Random, scene: Scene) -> list[Event]:
    """Many names below one domain, and all of them words."""
    source, domain = scene.hosts[0], scene.outside[0]
    names = rng.sample(ASSETS, _count(rng))
    return _spaced(rng, [f"{source}>dns A {name}.{domain}" for name in names], 0.1, 0.6)


def content_networks(rng: random.Random, scene: Scene) -> list[Event]:
    """Made-up names, yet short, and each below another domain."""
    domains = scene.outside[: rng.choice((3, 4))]
    lines = [f"{scene.hosts[0]}>dns A {_odd_name(rng, 4)}.{domain}" for domain in domains]
    return _spaced(rng, lines, 0.3, 2)


def _regular(rng: random.Random, source: str, target: str) -> list[Event]:
    period, size = rng.choice((20, 30, 45, 60)), _small(rng)
    count = _count(rng)
    return [(period * n + rng.uniform(0, 0.9), f"{source}>{target} https {size}") for n in range(count)]


def beacon(rng: random.Random, scene: Scene) -> list[Event]:
    return _regular(rng, scene.hosts[0], scene.outside[0])


def approved_poller(rng: random.Random, scene: Scene) -> list[Event]:
    """The same rhythm and size, from the approved monitor."""
    return _regular(rng, scene.known["monitor"], scene.outside[0])


def browsing(rng: random.Random, scene: Scene) -> list[Event]:
    """One host visits one site again and again, at odd times and with other sizes each time."""
    gaps = rng.sample((4, 11, 23, 38, 57, 80), _count(rng) - 1)
    times = [float(sum(gaps[:n])) for n in range(len(gaps) + 1)]
    line = f"{scene.hosts[0]}>{scene.outside[0]} https"
    sizes = [f"{sent}k/{rng.randint(20, 900)}k" for sent in rng.sample(range(1, 10), len(times))]
    return [(time, f"{line} {size}") for time, size in zip(times, sizes, strict=True)]


def _uploads(rng: random.Random, source: str, target: str) -> list[Event]:
    sizes = [f"{rng.randint(120, 990)}M/{rng.randint(1, 9)}k" for _ in range(rng.choice((2, 3, 3)))]
    return _spaced(rng, [f"{source}>{target} https {size}" for size in sizes], 5, 40)


def exfil(rng: random.Random, scene: Scene) -> list[Event]:
    return _uploads(rng, scene.hosts[0], scene.outside[0])


def approved_backup(rng: random.Random, scene: Scene) -> list[Event]:
    """The same volumes, sent to the approved backup."""
    return _uploads(rng, scene.hosts[0], scene.known["backup"])


def download(rng: random.Random, scene: Scene) -> list[Event]:
    """The same volumes, received instead of sent."""
    flipped = []
    for time, line in _uploads(rng, scene.hosts[0], scene.outside[0]):
        head, _, size = line.rpartition(" ")
        sent, _, received = size.partition("/")
        flipped.append((time, f"{head} {received}/{sent}"))
    return flipped


def _fan_out(rng: random.Random, scene: Scene, actor: str) -> list[Event]:
    service, name = rng.choice(("ssh", "rdp")), first_name(rng).lower()
    targets = scene.hosts[1 : 1 + _count(rng)]
    return _spaced(rng, [f"{actor}>{target} {service} ok {name}" for target in targets], 4, 20)


def lateral(rng: random.Random, scene: Scene) -> list[Event]:
    """One account goes from host to host: each target is the next source, or one host logs in to many."""
    if rng.random() < 0.5:
        return _fan_out(rng, scene, scene.hosts[0])
    service, name, count = rng.choice(("ssh", "rdp")), first_name(rng).lower(), _count(rng)
    hops = zip(scene.hosts[:count], scene.hosts[1 : count + 1], strict=True)
    return _spaced(rng, [f"{a}>{b} {service} ok {name}" for a, b in hops], 4, 20)


def approved_administration(rng: random.Random, scene: Scene) -> list[Event]:
    """One account logs in to many hosts, from the approved administrator's."""
    return _fan_out(rng, scene, scene.known["admin"])


def shared_server(rng: random.Random, scene: Scene) -> list[Event]:
    """Many logins, each of another account from its own host to the same server."""
    service, count = rng.choice(("ssh", "rdp")), _count(rng)
    users = zip(scene.hosts[1 : count + 1], _accounts(rng, count), strict=True)
    return _spaced(rng, [f"{host}>{scene.hosts[0]} {service} ok {name}" for host, name in users], 4, 20)


def flood(rng: random.Random, scene: Scene) -> list[Event]:
    """Many outside sources open connections to one port within a second or two, and none completes."""
    port, sources = rng.choice((80, 443)), scene.outside[: rng.choice((3, 4))]
    return _spaced(rng, [f"{source}>{scene.hosts[0]} tcp/{port} no-reply" for source in sources], 0, 0.4)


def visitors(rng: random.Random, scene: Scene) -> list[Event]:
    """As many sources in as short a time, and each is served."""
    sources = scene.outside[: rng.choice((3, 4))]
    return _spaced(rng, [f"{source}>{scene.hosts[0]} https {_small(rng)}" for source in sources], 0, 0.4)


def server_down(rng: random.Random, scene: Scene) -> list[Event]:
    """Nothing completes either, but it is one source that tries again after ever longer waits."""
    line = f"{scene.outside[0]}>{scene.hosts[0]} tcp/{rng.choice((80, 443))} no-reply"
    return [(3.0 * (2**n - 1) + 0.2, line) for n in range(_count(rng))]


ATTACKS: Mapping[str, Episode] = {
    "scan": scan,
    "brute-force": brute_force,
    "tunnel": tunnel,
    "beacon": beacon,
    "exfil": exfil,
    "lateral": lateral,
    "flood": flood,
}
"""The attack that each label means."""

LOOK_ALIKES: Mapping[str, tuple[Episode, Episode]] = {
    "scan": (approved_scan, busy_server),
    "brute-force": (mistyped_password, morning_rush),
    "tunnel": (page_with_many_parts, content_networks),
    "beacon": (approved_poller, browsing),
    "exfil": (approved_backup, download),
    "lateral": (approved_administration, shared_server),
    "flood": (visitors, server_down),
}
"""Ordinary traffic by the attack that it resembles."""


def background(rng: random.Random, scene: Scene) -> str:
    """A line that resembles no attack. Approved hosts speak here too: to see one named decides nothing."""
    inside = [name for role, name in scene.known.items() if role != "backup"]
    source, target = rng.sample([*scene.hosts[6:], *inside], 2)
    site = rng.choice((scene.outside[-1], scene.outside[-1], scene.known["backup"]))
    return rng.choice(
        (
            f"{source}>{site} https {_small(rng)}",
            f"{source}>{target} smb {_small(rng)}",
            f"{source}>{target} ipp {_small(rng)}",
            f"{source}>dns A www.{site}",
            f"{source}>mail imap {_small(rng)}",
        )
    )


def _accounts(rng: random.Random, count: int) -> list[str]:
    """Different account names."""
    names: dict[str, None] = {}
    while len(names) < count:
        names[first_name(rng).lower()] = None
    return list(names)


def _small(rng: random.Random) -> str:
    return f"{rng.randint(1, 9)}k/{rng.randint(1, 99)}k"
