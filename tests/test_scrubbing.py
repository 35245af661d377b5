"""Messages of errors: every shape of a secret goes, what helps a person to find the cause stays."""

from __future__ import annotations

import base64
import time

import pytest

from cmdrdata_exporter import scrubbing
from cmdrdata_exporter.scrubbing import LONGEST_MESSAGE, SCRUBBED, issuer, scrubbed, without_secrets

HEX_32 = "3f2a9c1b77d04e5f8a6b0c9d1e2f3a4b"
ALNUM_32 = "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"
AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P"
UUID = "550e8400-e29b-41d4-a716-446655440000"
BASIC = base64.b64encode(b"user:hunter2").decode()

SECRETS = [
    ("Incorrect API key provided: {}. You can find yours on the page.", "sk-proj-abcdefgh1234"),
    ("Incorrect API key provided: {}.", "sk-aBcDeFgHiJkLmNoPqRsTuVwX"),
    ("Incorrect API key provided: {}.", "sk-proj-********************1234"),
    ("invalid x-api-key: {}", "sk-ant-api03-aB3_dE5-fG7hJ9kL1mN2pQ4rS6tU8vW0xY-AA"),
    ("No auth credentials found for {}", "sk-or-v1-" + 2 * HEX_32),
    ("Your session {} has expired", "sess-aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"),
    ("The client secret {} is not valid here", "ek_68a1b2c3d4e5f60718293a4b"),
    (
        "API key not valid: {}. Please pass a valid API key.",
        "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY",
    ),
    ("API key {} is not valid", "AQ.Ab8RN6KcX9vTq3LmPz7YdWe2Rf5Gh1Jk"),
    ("Request had invalid credentials {}", "ya29.a0AfH6SMBx3dE5fG7hJ9kL1mN2pQ4rS6"),
    ("Unknown client {}", "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"),
    ("Invalid API Key {}", "gsk_aB3dE5fG7hJ9kL1mN2pQWGdyb3FYaB3dE5fG7hJ9"),
    ("Incorrect API key provided: {}", "xai-aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"),
    ("Invalid credentials in Authorization header: {}", "hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ1234567"),
    ("The organization token {} was revoked", "api_org_aBcDeFgHiJkLmNoPqRsTuVwXyZ1234"),
    ("Invalid API key: {}", "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"),
    ("You did not pass a valid token: {}", "r8_aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY12345"),
    ("Authentication failed with {}", "nvapi-aB3dE5fG7hJ9kL1mN2pQ-4rS6tU8vW0xY_z"),
    ("The API key {} is not known", "fw_3ZaB3dE5fG7hJ9kL1mN2pQ4r"),
    ("Wrong API key: {}", "csk-3f2a9c1b77d04e5f8a6b0c9d1e2f3a4b"),
    ("Invalid API key provided: {}", "tgp_v1_aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY-z_1"),
    ("Unauthorized: {}", "jina_3f2a9c1b77d04e5f8a6b0c9d1e2f3a4baB3dE5fG"),
    ("Provided API key is invalid: {}", "pa-aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY"),
    ("Invalid access token {}", "dapi3f2a9c1b77d04e5f8a6b0c9d1e2f3a4b"),
    ("Forbidden for {}", "lsv2_pt_3f2a9c1b77d04e5f8a6b0c9d1e2f3a4b_1234567890"),
    ("The security token {} is expired", "ABSKQmVkcm9ja0FQSUtleS1hYmNkMTIzNDU2Nzg5MA=="),
    ("Access denied due to invalid subscription key {}.", HEX_32),
    ("Wrong API key or endpoint. Key: {}", HEX_32 + HEX_32.upper()[:20] + "ACOGabcd"),
    ("Unauthorized: Bearer token {} is not valid", ALNUM_32),
    ("invalid api token: {}", "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz1A2b3C4"),
    ("The AWS Access Key Id {} does not exist in our records", "AKIAIOSFODNN7EXAMPLE"),
    ("Tried AKIAIOSFODNN7EXAMPLE:{} and failed", AWS_SECRET),
    ("aws_secret_access_key={}", AWS_SECRET),
    ("Signature does not match for secret {}", "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"),
    ("No such charge; you used {}", "sk_live_51HaB3dE5fG7hJ9kL1mN2"),
    ("You used the restricted key {}", "rk_test_51HaB3dE5fG7hJ9kL1mN2"),
    ("Bad webhook {}", "whsec_aB3dE5fG7hJ9kL1mN2pQ4rS6"),
    ("Bad credentials: {}", "ghp_aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY1234"),
    ("Bad credentials: {}", "github_pat_11ABCDEFG0aB3dE5fG7hJ9_kL1mN2pQ4rS6"),
    ("401 Unauthorized for {}", "glpat-aB3dE5fG7hJ9kL1mN2pQ"),
    ("invalid_auth: {}", "xoxb-123456789012-1234567890123-aB3dE5fG7hJ9kL1m"),
    ("The sender {} is not known", "SG.aB3dE5fG7hJ9kL1m.N2pQ4rS6tU8vW0xYz1A2b3C4d5E6f7G8h9"),
    ("Cannot upload with {}", "npm_aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY12"),
    ("'authorization': 'Basic {}'", BASIC),
    ("authorization: basic {}", BASIC),
    ("Header was Authorization: Bearer {}", "abcdefgh.ijklmnop"),
    ("header was authorization: bearer {}", "a1b2c3d4"),
    ("connect to http://proxy-user:{}@proxy.example:3128 failed", "p4ss-word"),
    ("connect to postgres://app:{}@db/usage failed", "p@ss:word"),
    ("git clone https://{}@github.com/a/b", "mytokenwithoutanumber"),
    ("token {} has expired", JWT),
    ("id_token={}&state=1", JWT),
    ("GET /v1/models?key={}&alt=json failed", "aB3dE5fG7hJ9kL1mN2pQ"),
    ("PUT https://x.blob.example/c?sv=2024&sig={}&se=1", "aB3%2FdE5fG7hJ9kL1mN2pQ4rS6tU8vW0xY%3D"),
    ("AccountKey={};EndpointSuffix=core", "aB3dE5fG7hJ9kL1mN2pQ4rS6tU8vW0xYz1A2b3C4d5E6f7G8h9=="),
    ('{{"client_secret":"{}"}}', "hunter"),
    ("login failed: password={} user=x", "hunter"),
    ("login failed: password: '{}'", "hunter2"),
    ("Invalid api_key: {}", UUID),
    (
        "-----BEGIN RSA PRIVATE KEY-----\n{}",
        "MIIEpAIBAAKCAQEA\nabc+def/ghi\n-----END RSA PRIVATE KEY-----",
    ),
    ("Bad key {} (CmdrData)", "tk-0123456789abcdefghij"),
    ("Denied for key-{}", "1234567890abcdef"),
]

HARMLESS = [
    "The model `meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8` does not exist",
    "The model `accounts/fireworks/models/llama4-maverick-instruct-basic` does not exist",
    "The model `anthropic.claude-3-5-sonnet-20241022-v2:0` is not supported",
    "The model `gpt-4o-mini-transcribe-2025-12-15-preview` is deprecated",
    "The model `ft:gpt-4o-mini-2024-07-18:acme::AbCdEfGh` does not exist",
    "The model `Qwen/Qwen2.5-Coder-32B-Instruct-GPTQ-Int4` is loading",
    f"Request failed (request id: {HEX_32})",
    f"The server had an error. x-request-id: {HEX_32}",
    f'{{"requestId": "{HEX_32}"}}',
    "The server had an error (request ID req_011CSHoEeqs5C35K2UUqR7Fy)",
    "No response found with id resp_68a1b2c3d4e5f60718293a4b68a1b2c3d4e5f607",
    "No such file object: file-aB3dE5fG7hJ9kL1mN2pQ4rS6",
    "Completion chatcmpl-9aB3dE5fG7hJ9kL1mN2pQ4rS6tU8v was not stored",
    f"Conversation {UUID} was not found",
    f"trace {HEX_32}, span 00f067aa0ba902b7",
    f"traceparent: 00-{HEX_32}-00f067aa0ba902b7-01",
    f"The cache has hash {HEX_32}",
    f"image sha256:{2 * HEX_32} not found",
    "This model's maximum context length is 128000 tokens. However, your messages resulted in 131072 tokens.",
    "Rate limit reached for gpt-4o-mini in organization org-aB3dE5fG7hJ9kL1mN2pQ4rS6 on tokens per min (TPM)",
    "Unknown parameter: 'response_format.json_schema.strict'.",
    "Invalid value for 'messages[0].content[1].image_url.detail': expected one of low, high, auto",
    "You passed an invalid token: expected a string",
    "password: required",
    "Basic authentication is not supported, use a Bearer token",
    "A key-value store holds max_completion_tokens=4096 and token: 5",
    "openai.BadRequestErrorInvalidParameterException: invalid_request_error",
    "HTTPSConnectionPool(host='api.openai.com', port=443): Max retries exceeded with url: /v1/chat/completions",
    "https://platform.openai.com/docs/guides/error-codes/api-errors#python-library-error-types",
    "/usr/lib/python3.12/site-packages/opentelemetry/instrumentation/auto_instrumentation/sitecustomize.py",
    "[Errno 111] Connection refused at 2026-11-21T18:33:20.123456Z",
]


@pytest.mark.parametrize(("sentence", "secret"), SECRETS, ids=lambda text: text[:30])
def test_secrets(sentence: str, secret: str) -> None:
    """Whatever shape a secret has, and however a provider quotes it, none of it is kept."""
    found = scrubbed(sentence.format(secret))
    assert SCRUBBED in found
    for start in range(len(secret) - 5):
        assert secret[start : start + 6] not in found or secret[start : start + 6] in sentence


@pytest.mark.parametrize(("sentence", "secret"), SECRETS, ids=lambda text: text[:30])
def test_twice(sentence: str, secret: str) -> None:
    """What is scrubbed already stays as it is."""
    once = scrubbed(sentence)
    assert once == scrubbed(once)


@pytest.mark.parametrize("message", HARMLESS, ids=lambda text: text[:30])
def test_what_stays(message: str) -> None:
    """What a person needs to find the cause is kept: ids, hashes that are named, names of models, sentences."""
    assert message == scrubbed(message)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("sk-proj-0123456789abcdef", "OpenAI"),
        ("sk-ant-api03-0123456789abcdef", "Anthropic"),
        ("sk-or-v1-0123456789abcdef", "OpenRouter"),
        ("AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY", "Google"),
        ("gsk_0123456789abcdefghij", "Groq"),
        ("hf_0123456789abcdefghij", "Hugging Face"),
        ("tk-0123456789abcdefghij", None),
        ("key-0123456789abcdefghij", None),
        (HEX_32, None),
    ],
)
def test_whose_key(key: str, expected: str | None) -> None:
    """A key that tells by its beginning whose it is is known by it."""
    assert expected == issuer(key)


def test_each_beginning_is_scrubbed() -> None:
    """What is known as somebody's key is a secret in a message too: both go by one list."""
    for prefix in scrubbing._BEGINNINGS:
        assert f"Got {SCRUBBED}." == scrubbed(f"Got {prefix}A1B2C3D4E5F6G7H8.")


HOSTILE = [
    "a",
    "a-",
    "1-",
    "pa-",
    "sk-",
    "key-",
    "://",
    "://a@",
    "://a:",
    "eyJ",
    "eyJhbGciOiJI.",
    "password",
    "password=",
    "token: ",
    "key",
    'key"',
    "bearer ",
    "bearer        ",
    "-----BEGIN PRIVATE KEY-----",
    "-----BEGIN ",
    "AKIA",
    "AKIAAAAAAAAAAAAAAAAA ",
    "AbCd1/",
    " ",
    "0",
    "\n",
    "id: ",
]


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text(unit: str) -> None:
    """No text takes more than linear time: 100 kB of what the patterns begin with are searched at once."""
    text = unit * (100_000 // len(unit))
    began = time.process_time()
    without_secrets(text)
    assert time.process_time() - began < 1.0
    assert len(scrubbed(text)) <= LONGEST_MESSAGE


@pytest.mark.parametrize("at", range(1985, 2001))
def test_a_secret_across_the_end_of_what_is_searched(at: int) -> None:
    """A secret that is cut through is not told by its shape any more, so nothing of it is kept."""
    key = "AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY"
    # What stands before it is scrubbed to a few characters, so that the end of what is searched shows.
    before = (JWT + " ") * 40
    found = scrubbed(before[: at - 1] + " " + key + " tail")
    assert "AIza" not in found
