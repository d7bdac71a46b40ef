"""A seeded generator of labelled mail. All of it is synthetic; every domain ends in `.example`.

A phishing mail carries at least one technical sign (look-alike sender, foreign Reply-To, foreign link) and
at least one social sign (urgency, a request for credentials or money). A legitimate mail is consistent in
all its domains, yet may be urgent or speak of passwords as well: tone alone does not decide.
`MailTask.indicators` are the spans, verbatim in the mail, that justify the label.
"""

import json
import random
from dataclasses import asdict, dataclass
from typing import Any

from environments.shared.word_lists import Split, first_name, organisation_stem

PHISHING, LEGITIMATE = "phishing", "legitimate"
LABELS = (PHISHING, LEGITIMATE)

SYSTEM_PROMPT = (
    "Is the mail phishing or legitimate? Reply with one line of JSON: label, confidence from 0 to 1, "
    "evidence copied from the mail."
)


@dataclass(frozen=True)
class Demonstration:
    """An earlier exchange in the prompt that shows the form of an answer; its quote is in no mail."""

    mail: str
    label: str
    quote: str

    def messages(self) -> list[dict[str, str]]:
        answer = json.dumps({"label": self.label, "confidence": 0.8, "evidence": [self.quote]})
        return [{"role": "user", "content": self.mail}, {"role": "assistant", "content": answer}]


DEMONSTRATIONS = (
    Demonstration(
        "From: Elm Shop <win@e1mshop.example>\nYou won! Send us your PIN.", PHISHING, "Send us your PIN"
    ),
    Demonstration(
        "From: Elm Shop <hi@elmshop.example>\nWe open at noon today.", LEGITIMATE, "We open at noon"
    ),
)
"""A task shows one of the two, drawn without regard to its own label, so that neither label is favoured."""

SECTORS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Bank": (
        ("Your statement", "your monthly statement is ready.", "statement"),
        ("New sign-in", "there was a new sign-in to your account.", "sign-in"),
        ("Card notice", "your card was used for an online order.", "card"),
    ),
    "Parcel": (
        ("Your parcel", "your parcel is at our depot.", "parcel"),
        ("Delivery update", "your delivery was moved to tomorrow.", "delivery"),
    ),
    "Payroll": (
        ("Your payslip", "your payslip for this month is here.", "payslip"),
        ("Leave request", "your leave request was changed.", "leave"),
    ),
    "Cloud": (
        ("Shared file", "a colleague shared a file with you.", "file"),
        ("Storage notice", "your storage is almost full.", "storage"),
    ),
    "Tickets": (
        ("Your order", "your order for two tickets was received.", "order"),
        ("Refund", "your refund has been approved.", "refund"),
    ),
    "Energy": (
        ("Your bill", "your energy bill for this quarter is ready.", "bill"),
        ("Meter reading", "we have your latest meter reading.", "meter"),
    ),
}

URGENCY = (
    "Act within 24 hours.",
    "Your account will be closed today.",
    "This is your final notice.",
    "Respond immediately to avoid a fee.",
    "Your access ends tonight.",
)
LEGITIMATE_URGENCY = ("Please read this by Friday.", "The offer ends today.", "Please reply within 24 hours.")
REQUESTS = (
    "Confirm your password at the link.",
    "Enter your card number to go on.",
    "Verify your identity with your PIN.",
    "Sign in at the link to unlock it.",
    "Pay a small fee with a gift card.",
    "Reply with your login details.",
)
REASSURANCES = (
    "No action is needed.",
    "We never ask for your password by mail.",
    "Sign in to the app as usual to see it.",
    "You can ignore this if it was you.",
    "Call the number on your contract for help.",
)
MAILBOXES = ("info", "alerts", "service", "news")
LOOK_ALIKE_CHARACTERS = (("o", "0"), ("l", "1"), ("i", "1"), ("m", "rn"), ("w", "vv"), ("e", "3"))
BAIT_WORDS = ("verify", "secure", "login", "support")
FREE_MAIL = ("quickmail.example", "freepost.example", "mailbox77.example")


@dataclass(frozen=True)
class MailTask:
    """One mail, its label, the spans that justify it, and which of `DEMONSTRATIONS` the prompt shows."""

    mail: str
    label: str
    indicators: tuple[str, ...]
    demonstration: int

    def messages(self) -> list[dict[str, str]]:
        return [
            {"role": "system", "content": SYSTEM_PROMPT},
            *DEMONSTRATIONS[self.demonstration].messages(),
            {"role": "user", "content": self.mail},
        ]

    def answer(self) -> str:
        return self.label

    def info(self) -> dict[str, Any]:
        return asdict(self)


def draw_mail(rng: random.Random, split: Split) -> MailTask:
    """One mail, phishing or legitimate with equal chance; senders of the two splits never coincide."""
    label = rng.choice(LABELS)
    sector = rng.choice(sorted(SECTORS))
    brand = f"{organisation_stem(rng, split)} {sector}"
    domain = brand.replace(" ", "").lower() + ".example"
    if label == PHISHING:
        headers, signs = _phishing_headers(rng, domain)
        remarks = _phishing_remarks(rng)
        signs += remarks
    else:
        headers, signs = _legitimate_headers(rng, domain)
        remarks, reassurances = _legitimate_remarks(rng)
        signs += reassurances
    subject, sentence, path = rng.choice(SECTORS[sector])
    lines = [f"From: {brand} <{headers['from']}>"]
    if headers["reply_to"]:
        lines.append(f"Reply-To: {headers['reply_to']}")
    lines.append(f"Subject: {subject}")
    lines.append(" ".join([f"Dear {first_name(rng)}, {sentence}", *remarks]))
    if headers["link"]:
        lines.append(f"Link: https://{headers['link']}/{path}")
    return MailTask("\n".join(lines), label, tuple(signs), rng.randrange(len(DEMONSTRATIONS)))


def look_alike(rng: random.Random, domain: str) -> str:
    """A domain that resembles `domain` and is never equal to it."""
    name = domain.removesuffix(".example")
    swaps = [name.replace(old, new, 1) for old, new in LOOK_ALIKE_CHARACTERS if old in name]
    bait = rng.choice(BAIT_WORDS)
    return rng.choice([*swaps, f"{name}-{bait}", f"{bait}-{name}", f"{name}.{bait}-site"]) + ".example"


def _phishing_headers(rng: random.Random, domain: str) -> tuple[dict[str, str], list[str]]:
    tricks = rng.choice(
        [("from",), ("link",), ("from", "link"), ("reply_to",), ("reply_to", "link"), ("from",)]
    )
    fake = look_alike(rng, domain)
    reply_domain = rng.choice(FREE_MAIL)
    headers = {
        "from": f"{rng.choice(MAILBOXES)}@{fake if 'from' in tricks else domain}",
        "reply_to": f"{domain.split('.')[0]}@{reply_domain}" if "reply_to" in tricks else "",
        "link": fake if "link" in tricks else rng.choice(["", domain]),
    }
    signs = [reply_domain] if "reply_to" in tricks else []
    return headers, signs + ([fake] if {"from", "link"} & set(tricks) else [])


def _legitimate_headers(rng: random.Random, domain: str) -> tuple[dict[str, str], list[str]]:
    headers = {
        "from": f"{rng.choice(MAILBOXES)}@{domain}",
        "reply_to": rng.choice(["", "", f"help@{domain}"]),
        "link": rng.choice(["", domain]),
    }
    return headers, [domain]


def _phishing_remarks(rng: random.Random) -> list[str]:
    kinds = rng.choice([("urgency",), ("request",), ("urgency", "request"), ("urgency", "request")])
    texts = {"urgency": rng.choice(URGENCY), "request": rng.choice(REQUESTS)}
    return [texts[kind] for kind in kinds]


def _legitimate_remarks(rng: random.Random) -> tuple[list[str], list[str]]:
    reassurances = [rng.choice(REASSURANCES)] if rng.random() < 0.7 else []
    urgency = [rng.choice(LEGITIMATE_URGENCY)] if rng.random() < 0.3 else []
    return urgency + reassurances, reassurances
