"""
Messages of errors, without what must not be kept. Pure.

A provider quotes in its errors what it was sent: a key, a header, a URL with a password in it.
`_PREFIXES` says how keys begin, and whose they are. `_RULES` adds what tells by its place, a
header or a field, and what tells by nothing but chance: a long run of letters and digits.
Ids of requests and traces, hashes, UUIDs and the names of models stay, since a person needs them to find the cause.
Each pattern takes linear time: what repeats is bounded, or cannot be split in two ways.
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterable

LONGEST_MESSAGE = 500
"""Characters of a message that are kept."""
SCRUBBED = "[scrubbed]"

_PREFIXES: dict[str | None, tuple[str, ...]] = {
    "Anthropic": ("sk-ant-",),
    "OpenRouter": ("sk-or-",),
    "Langfuse": ("sk-lf-", "pk-lf-"),
    "OpenAI": ("sk-", "sess-", "ek_"),
    "Google": ("AIza", "AQ.", "ya29.", "GOCSPX-"),
    "Groq": ("gsk_",),
    "xAI": ("xai-",),
    "Hugging Face": ("hf_", "api_org_"),
    "Perplexity": ("pplx-",),
    "Replicate": ("r8_",),
    "NVIDIA": ("nvapi-",),
    "Fireworks": ("fw_",),
    "Cerebras": ("csk-",),
    "Together": ("tgp_v1_",),
    "Jina": ("jina_",),
    "Voyage": ("pa-",),
    "Databricks": ("dapi",),
    "DigitalOcean": ("dop_v1_",),
    "LangSmith": ("lsv2_",),
    "Amazon Bedrock": ("ABSK", "bedrock-api-key-"),
    "AWS": ("AKIA", "ASIA"),
    "Stripe or ElevenLabs": ("sk_",),
    "Stripe": ("rk_", "pk_", "whsec_"),
    "GitHub": ("github_pat_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    "GitLab": ("glpat-",),
    "Slack": ("xoxb-", "xoxp-", "xapp-"),
    "npm": ("npm_",),
    "PyPI": ("pypi-",),
    "Shopify": ("shpat_",),
    "SendGrid": ("SG.",),
    None: ("tk-", "pk-", "rk-", "key-"),
}
"""How keys begin, by whose they are: `issuer` tells. None: of nobody in particular."""
_BEGINNINGS = {prefix: owner for owner, prefixes in _PREFIXES.items() for prefix in prefixes}

_IDS = (
    r"req_|chatcmpl-|cmpl-|resp_|msg_|run_|file[-_]|batch_|asst_|thread_|step_|call_|rs_|fc_|vs_|ft:|ftjob-|eval_|evalrun_"
    r"|video_|conv_|org-|proj_|user-|gen-|toolu_|srvtoolu_"
)
"""How the ids begin that providers give to what they make."""

_CONTEXT = 40
"""Characters before a run of letters and digits that may say what it is."""
_HARMLESS = re.compile(
    # An id or a hash is named before it, or tells by its own beginning or its form.
    r"(?i)(?:(?:\b|[-_])id|[a-z](?-i:I)d|trace(?:[-_ ]?parent)?|span|hash|digest|sha-?\d{1,3}|md5|etag|fingerprint"
    r"|checksum|revision|commit|ray)[\"'\]]{0,2}\s{0,2}(?:[:=#]|is)?\s{0,2}[\"'(\[]{0,2}\Z"
)
_ID = re.compile(
    rf"(?:{_IDS})"
    r"|(?i:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})\Z"
)
_CHANGE = re.compile(r"[a-z](?=[A-Z0-9])|[A-Z](?=[0-9])|[0-9](?=[A-Za-z])")
"""Where a run changes its kind. A capital before a small letter is no change: so words begin."""
_LONG_SEGMENT = re.compile(r"(?=[A-Za-z]{0,40}[0-9])(?=[0-9]{0,40}[A-Za-z])[A-Za-z0-9]{24,}")


def _is_random(word: str) -> bool:
    """Say whether a word seems to be made by chance: it changes its kind too often for a name."""
    return len(_CHANGE.findall(word)) * 6 >= len(word)


def _word(match: re.Match[str]) -> str:
    word = match[0]
    before = match.string[max(0, match.start() - _CONTEXT) : match.start()]
    if _ID.match(word) or _HARMLESS.search(before):
        return word
    return SCRUBBED if _LONG_SEGMENT.search(word) or _is_random(word) else word


def _labelled(match: re.Match[str]) -> str:
    label, value = match["label"], match["value"]
    tells = any(c.isdigit() for c in value) and any(c.isalpha() for c in value)
    is_password = label[:2].lower() in ("pa", "pw", "se")
    directly = match["between"] in ("=", '":"', "':'")
    secret = (
        (directly or tells or not value.islower()) if is_password else tells and len(value) > 15
    )
    return f"{label}{match['between']}{SCRUBBED}" if secret else match[0]


def _credential(match: re.Match[str]) -> str:
    value = match["value"]
    secret = len(value) > 15 or (len(value) > 3 and not value.isalpha()) or _is_random(value)
    return f"{match['scheme']}{SCRUBBED}" if secret else match[0]


_CLEAR_PREFIXES = ("sk-", "tk-", "pk-", "rk-", "gsk_", "xai-")
"""Those that begin nothing else, whatever follows."""


def _either(prefixes: Iterable[str]) -> str:
    return "|".join(map(re.escape, prefixes))


_RULES: tuple[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(
            r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)",
            re.DOTALL,
        ),
        SCRUBBED,
    ),
    # User and password in a URL.
    (re.compile(r"(?<=://)[^\s/?#\"'@]{1,512}(?:@[^\s/?#\"'@]{1,512})*(?=@)"), SCRUBBED),
    # A JSON Web Token, and any part of one that begins it.
    (re.compile(r"\beyJ[\w\-]{8,}(?:\.[\w\-]*)*"), SCRUBBED),
    # A pair of AWS: the secret one tells by nothing but its neighbour.
    (
        re.compile(
            r"(?<![A-Za-z0-9])(?:AKIA|ASIA)[A-Z0-9]{12,20}(?:[\s:,;/|\"']{1,4}[A-Za-z0-9+/]{40})?"
        ),
        SCRUBBED,
    ),
    (
        re.compile(
            rf"(?<![A-Za-z0-9])(?:(?:{_either(_CLEAR_PREFIXES)})[\w*\-]{{4,}}"
            rf"|(?:{_either(_BEGINNINGS)})(?=[\w\-]{{0,40}}[\d*])[\w*\-]{{8,}})"
            r"(?:[.+/=][\w*\-]{6,})*=*"
        ),
        SCRUBBED,
    ),
    (
        re.compile(
            r"(?P<scheme>(?i:\b(?:bearer|basic|apikey|token))\s{1,8})(?P<value>[^\s\"',;<>()\[\]{}]+)"
        ),
        _credential,
    ),
    (
        re.compile(
            r"(?P<label>(?i:pass(?:word|wd|phrase)?|pwd|secret|key|token|signature|sig|authorization|auth|credentials?))"
            r"(?P<between>[\"'\\]{0,3}\s{0,3}(?:=>|[:=]|is\b|provided:)\s{0,3}[\"'\\]{0,3})(?P<value>[^\s\"'\\,;&<>()\[\]{}]+)"
        ),
        _labelled,
    ),
    # What tells by nothing: 32 hex digits of Azure, 32 letters and digits of Mistral, 40 of Cohere.
    (re.compile(r"[A-Za-z0-9][\w+/~\-]{19,}={0,2}"), _word),
)
"""Each kind of secret, and what is kept of it. They are searched for one after the other."""

_RUN = f"{string.ascii_letters}{string.digits}_*+/=~.-"
"""What a secret may be made of."""


def scrubbed(message: str) -> str:
    """Return a message without anything that looks like a secret, cut to 500 characters."""
    # Nobody needs a megabyte searched. A secret that is cut through could not be told, so it goes whole.
    beginning = message[: 4 * LONGEST_MESSAGE]
    if len(message) > len(beginning):
        beginning = beginning.rstrip(_RUN) or SCRUBBED
    return without_secrets(beginning)[:LONGEST_MESSAGE]


def without_secrets(text: str) -> str:
    """Return all of a text, with everything that looks like a secret replaced."""
    for pattern, replacement in _RULES:
        text = pattern.sub(replacement, text)
    return text


def issuer(key: str) -> str | None:
    """Return whose key this is by its beginning, None where that is nobody's but CmdrData's."""
    # One may begin with another: sk-ant- is not OpenAI's.
    return _BEGINNINGS.get(max(filter(key.startswith, _BEGINNINGS), key=len, default=""))
