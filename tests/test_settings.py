"""Settings: what may be given, what comes of it, and how a mistake is told."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from cmdrdata_exporter import ConfigurationError, Settings, settings
from cmdrdata_exporter.setting_values import is_loopback
from cmdrdata_exporter.settings import NAMES, unknown_variables

KEY = "tk-0123456789abcdefghij"


def test_nothing_given() -> None:
    """Without key and endpoint the destination is this host."""
    found = Settings.read({})
    assert found == Settings(
        api_key=None,
        api_key_file=None,
        endpoint=None,
        account="default",
        enabled=True,
        customer_id=None,
        unattributed="hold",
        ambiguous="retry",
        spool_dir=Path("~/.local/state/cmdrdata"),
        durability="process",
        probe_interval=60.0,
    )
    assert found.destination == "local"


def test_everything_given(tmp_path: Path) -> None:
    """Each variable lands in its field."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n")
    assert Settings.read(
        {
            "CMDRDATA_API_KEY_FILE": str(file),
            "CMDRDATA_ENDPOINT": "https://eu.example/api/events?x=1",
            "CMDRDATA_ACCOUNT": "production",
            "CMDRDATA_ENABLED": " TRUE ",
            "CMDRDATA_STREAM_USAGE": "Never\n",
            "CMDRDATA_METRICS_CUSTOMER": "True",
            "CMDRDATA_CALL_SITE": "1",
            "HTTPS_PROXY": "http://proxy.example:3128",
            "CMDRDATA_CUSTOMER_ID": " spaces stay\u00a0",
            "CMDRDATA_UNATTRIBUTED": "SEND",
            "CMDRDATA_AMBIGUOUS": "Hold",
            "CMDRDATA_SPOOL_DIR": "/var/spool/of ours",
            "CMDRDATA_DURABILITY": "fsync",
            "CMDRDATA_DRAIN": "None",
            "CMDRDATA_PROBE_INTERVAL": " 1.5 ",
            "CMDRDATA_TOTALS_BY_DAY_FOR": " 400\n",
            "CMDRDATA_TOTAL_BY": "plan, cost center,plan",
        }
    ) == Settings(
        api_key=None,
        api_key_file=file,
        endpoint="https://eu.example/api/events?x=1",
        account="production",
        enabled=True,
        customer_id=" spaces stay\u00a0",
        unattributed="send",
        ambiguous="hold",
        spool_dir=Path("/var/spool/of ours"),
        durability="fsync",
        drain="none",
        probe_interval=1.5,
        totals_by_day_for=400,
        total_by=("plan", "cost center"),
        stream_usage="never",
        call_site="true",
        metrics_customer=True,
        proxy="http://proxy.example:3128",
    )


@pytest.mark.parametrize(
    ("environ", "argument", "spool"),
    [
        ({}, None, "~/.local/state/cmdrdata"),
        ({"XDG_STATE_HOME": "/state"}, None, "/state/cmdrdata"),
        ({"XDG_STATE_HOME": "state"}, None, "~/.local/state/cmdrdata"),
        ({"XDG_STATE_HOME": "/state", "CMDRDATA_SPOOL_DIR": ""}, None, "/state/cmdrdata"),
        ({"XDG_STATE_HOME": "/state", "CMDRDATA_SPOOL_DIR": "/spool"}, None, "/spool"),
        ({"CMDRDATA_SPOOL_DIR": "/spool"}, "/argument", "/argument"),
        ({"CMDRDATA_SPOOL_DIR": "/spool"}, Path("/argument"), "/argument"),
    ],
)
def test_the_spool_directory(
    environ: dict[str, str], argument: str | Path | None, spool: str
) -> None:
    """Events are kept where the argument says, else the variable, else where the state of programs belongs."""
    assert Settings.read(environ, spool_dir=argument).spool_dir == Path(spool)


def test_a_relative_spool_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what it was when the settings were read, wherever the program goes; nowhere is no directory to start in."""
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = Settings.read({"CMDRDATA_SPOOL_DIR": "spool/x"})
    assert settings.spool_dir == tmp_path / "spool" / "x"
    assert Settings.read({}, spool_dir="~/spool").spool_dir == Path("~/spool")
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigurationError) as refusal:
        Settings.read({"CMDRDATA_SPOOL_DIR": "spool"})
    assert str(refusal.value) == (
        "CMDRDATA_SPOOL_DIR is 'spool', which cannot be made absolute: the working directory cannot be read "
        "(No such file or directory); expected is the absolute path of a directory on a local disk"
    )
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("off", ["false", "False ", "0"])
def test_switched_off(off: str) -> None:
    """Switched off means off: what only events need is not looked at, so that nothing of it can fail."""
    environ = {
        "CMDRDATA_ENABLED": off,
        "CMDRDATA_API_KEY": "tk-short",
        "CMDRDATA_ENDPOINT": "nowhere",
        "CMDRDATA_STREAM_USAGE": "always",
        "CMDRDATA_METRICS_CUSTOMER": "1",
        "CMDRDATA_CALL_SITE": "False",
    }
    assert Settings.read(environ) == Settings(
        enabled=False, stream_usage="always", metrics_customer=True, call_site="false"
    )


PROXY = "http://user:pass@proxy.example:3128"


@pytest.mark.parametrize(
    ("environ", "proxy"),
    [
        ({}, None),
        ({"HTTPS_PROXY": PROXY}, PROXY),
        ({"https_proxy": PROXY, "HTTPS_PROXY": "http://other"}, PROXY),
        ({"https_proxy": "proxy.example:3128"}, "http://proxy.example:3128"),
        ({"HTTPS_PROXY": "HTTPS://proxy.example"}, "HTTPS://proxy.example"),
        ({"HTTP_PROXY": PROXY}, None),
        ({"HTTPS_PROXY": PROXY, "NO_PROXY": "localhost, .eu.example"}, None),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "api.eu.example"}, None),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "example:443"}, None),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "*"}, None),
        ({"HTTPS_PROXY": PROXY, "no_proxy": "u.example,i.eu.example,"}, PROXY),
        ({"HTTPS_PROXY": PROXY, "CMDRDATA_ENDPOINT": "http://localhost:1/"}, None),
        ({"HTTPS_PROXY": "socks5://proxy.example", "no_proxy": "example"}, None),
    ],
)
def test_the_proxy(environ: dict[str, str], proxy: str | None) -> None:
    """An https endpoint is reached through the proxy of the environment, a host of this machine never is."""
    found = Settings.read({"CMDRDATA_ENDPOINT": "https://api.eu.example/", **environ})
    assert found.proxy == proxy
    assert "pass" not in repr(found)


def test_a_key_alone() -> None:
    """A key goes to CmdrData; the newline that mounted secrets end in is no part of it."""
    found = Settings.read({"CMDRDATA_API_KEY": f"{KEY}\n", "CMDRDATA_ENDPOINT": ""})
    assert (found.read_key(), found.endpoint) == (KEY, "https://api.cmdrdata.ai/api/events")
    assert found.destination == "default at https://api.cmdrdata.ai/api/events"


def test_arguments_prevail() -> None:
    """An argument prevails over its variable; a key passed in code without a name is an account of its own."""
    environ = {
        "CMDRDATA_API_KEY": KEY,
        "CMDRDATA_API_KEY_FILE": "",
        "CMDRDATA_ENDPOINT": "https://env.example/",
    }
    one = Settings.read(environ, api_key="tk-another-key-of-the-user")
    two = Settings.read(
        environ, api_key="tk-a-third-key-of-the-user", endpoint="http://localhost:1/x", account="b"
    )
    assert (one.api_key, one.endpoint) == ("tk-another-key-of-the-user", "https://env.example/")
    assert len(one.account) == 12
    assert "another" not in one.account
    assert (two.endpoint, two.account) == ("http://localhost:1/x", "b")


def test_the_key_file_is_read_anew(tmp_path: Path) -> None:
    """A rotated key is found without a restart."""
    file = tmp_path / "key"
    file.write_text(KEY)
    found = Settings.read({"CMDRDATA_API_KEY_FILE": str(file)})
    file.write_text("tk-rotated-rotated-rotated")
    assert found.read_key() == "tk-rotated-rotated-rotated"


MISTAKES = [
    (
        {"CMDRDATA_API_KEY": "tk-short"},
        "CMDRDATA_API_KEY has 8 characters; expected is a CmdrData key: 20 to 500 printable ASCII characters without "
        "spaces, commonly with tk- at the beginning. Copy it again from your CmdrData account",
    ),
    ({"CMDRDATA_API_KEY": "tk-" + "x" * 498}, "CMDRDATA_API_KEY has 501 characters; "),
    ({"CMDRDATA_API_KEY": "tk-0123456789 0123456789"}, "CMDRDATA_API_KEY holds whitespace; "),
    (
        {"CMDRDATA_API_KEY": "tk-0123456789\x00123456789"},
        "CMDRDATA_API_KEY holds control characters; ",
    ),
    (
        {"CMDRDATA_API_KEY": "tk-0123456789é123456789"},
        "CMDRDATA_API_KEY holds characters that are not ASCII; ",
    ),
    (
        {"CMDRDATA_API_KEY": f'"{KEY}"'},
        "CMDRDATA_API_KEY is in quotes, which are no part of a key; ",
    ),
    (
        {"CMDRDATA_API_KEY": f"'{KEY}'"},
        "CMDRDATA_API_KEY is in quotes, which are no part of a key; ",
    ),
    (
        {"CMDRDATA_API_KEY": KEY, "CMDRDATA_API_KEY_FILE": "/somewhere"},
        "CMDRDATA_API_KEY and CMDRDATA_API_KEY_FILE are both set; one key is expected: unset one of them",
    ),
    (
        {"CMDRDATA_API_KEY_FILE": "/no/such/file"},
        "CMDRDATA_API_KEY_FILE: cannot read '/no/such/file': No such file or directory; expected is a file that holds "
        "only the key and that this process may read",
    ),
    (
        {"CMDRDATA_API_KEY_FILE": "/no\0file"},
        "CMDRDATA_API_KEY_FILE: cannot read '/no\\x00file': that is no path; ",
    ),
    (
        {"CMDRDATA_ENDPOINT": "http://evil.example\\.localhost/"},
        "CMDRDATA_ENDPOINT holds a backslash; expected",
    ),
    (
        {"CMDRDATA_ENDPOINT": "http://app.localhost/"},
        "CMDRDATA_ENDPOINT is 'http://app.localhost/': http:// would send the key in the clear to app.localhost; ",
    ),
    (
        {"CMDRDATA_API_KEY": KEY, "HTTPS_PROXY": "socks5h://u:secret@proxy"},
        "HTTPS_PROXY names a socks5h:// proxy, which events cannot take; expected is the URL of an HTTP proxy, such as "
        "http://proxy.example:3128. With api.cmdrdata.ai in NO_PROXY events take no proxy",
    ),
    (
        {"CMDRDATA_API_KEY": KEY, "HTTPS_PROXY": "http://u:secret@proxy:port"},
        "HTTPS_PROXY is not a URL; expected",
    ),
    (
        {"CMDRDATA_API_KEY": KEY, "HTTPS_PROXY": "http://"},
        "HTTPS_PROXY is not a URL; expected",
    ),
    (
        {"CMDRDATA_ENDPOINT": "http://collector.example/api"},
        "CMDRDATA_ENDPOINT is 'http://collector.example/api': http:// would send the key in the clear to "
        "collector.example; use https:// (http:// is accepted for a loopback host only)",
    ),
    (
        {"CMDRDATA_ENDPOINT": "api.cmdrdata.ai"},
        "CMDRDATA_ENDPOINT is 'api.cmdrdata.ai'; expected is the full https:// URL to POST events to, such as "
        "https://api.cmdrdata.ai/api/events",
    ),
    (
        {"CMDRDATA_ENDPOINT": "https:///path"},
        "CMDRDATA_ENDPOINT is 'https:///path'; expected is the full https://",
    ),
    (
        {"CMDRDATA_ENDPOINT": "https://a b/"},
        "CMDRDATA_ENDPOINT holds whitespace or control characters; expected",
    ),
    (
        {"CMDRDATA_ENDPOINT": "https://host:port/"},
        "CMDRDATA_ENDPOINT is not a URL (Port could not be cast",
    ),
    (
        {"CMDRDATA_ENDPOINT": f"https://user:{KEY}@host/"},
        "CMDRDATA_ENDPOINT holds a user name or password; expected is the full https://",
    ),
    ({"CMDRDATA_ENABLED": "yes"}, "CMDRDATA_ENABLED is 'yes'; expected one of: true, 1, false, 0"),
    (
        {"CMDRDATA_UNATTRIBUTED": "drop"},
        "CMDRDATA_UNATTRIBUTED is 'drop'; expected one of: hold, send",
    ),
    (
        {"CMDRDATA_AMBIGUOUS": "drop"},
        "CMDRDATA_AMBIGUOUS is 'drop'; expected one of: retry, hold",
    ),
    (
        {"CMDRDATA_DURABILITY": "power"},
        "CMDRDATA_DURABILITY is 'power'; expected one of: process, fsync",
    ),
    (
        {"CMDRDATA_DRAIN": "sidecar"},
        "CMDRDATA_DRAIN is 'sidecar'; expected one of: thread, none",
    ),
    *(
        (
            {"CMDRDATA_PROBE_INTERVAL": value},
            f"CMDRDATA_PROBE_INTERVAL is {value!r}; expected is a number of seconds from 1 to 300",
        )
        for value in ("soon", "nan", "0.9", "301", "inf", "1_0_0_0")
    ),
    *(
        (
            {"CMDRDATA_TOTALS_BY_DAY_FOR": value},
            f"CMDRDATA_TOTALS_BY_DAY_FOR is {value!r}; expected is a whole number of days from 31 to 36500",
        )
        for value in ("ever", "30", "36501", "92.5", "-92", "\u0669\u0660", "9" * 5000)
    ),
    *(
        (
            {"CMDRDATA_TOTAL_BY": value},
            f"CMDRDATA_TOTAL_BY is {value!r}, which has {problem}; expected are up to 8 metadata keys of your own with "
            "commas between them, such as plan,team",
        )
        for value, problem in (
            ("plan,,team", "an empty name"),
            ("plan,", "an empty name"),
            ("pl\x07an", "a name that is not 1 to 100 printable characters"),
            ("p" * 101, "a name that is not 1 to 100 printable characters"),
            ("a,b,c,d,e,f,g,h,i", "9 keys"),
            ("plan,finish_reason", "finish_reason, a key that events have themselves"),
            ("usage", "usage, a key that events have themselves"),
            ("customer", "customer, by which usage can be summed already under that name"),
            ("hour", "hour, by which usage can be summed already under that name"),
        )
    ),
    (
        {"CMDRDATA_SPOOL_DIR": "/spool\0"},
        "CMDRDATA_SPOOL_DIR is '/spool\\x00'; expected is the path of a directory",
    ),
    (
        {"CMDRDATA_CUSTOMER_ID": "a\nb"},
        "CMDRDATA_CUSTOMER_ID holds control characters; expected are 1 to 256 characters, none of them a control "
        "character",
    ),
    (
        {"CMDRDATA_ACCOUNT": "x" * 257},
        "CMDRDATA_ACCOUNT is longer than 256 characters; ",
    ),
]


@pytest.mark.parametrize(("environ", "message"), MISTAKES)
def test_mistakes(environ: dict[str, str], message: str) -> None:
    """A setting that cannot be used is refused with its name, what is wrong and what is expected, never with a key."""
    with pytest.raises(ConfigurationError) as raised:
        Settings.read(environ)
    assert str(raised.value).startswith(message)
    key = environ.get("CMDRDATA_API_KEY", KEY)
    assert key not in str(raised.value)
    assert "secret" not in str(raised.value)


def test_mistakes_in_arguments() -> None:
    """A mistake in an argument is told by the argument's name."""
    with pytest.raises(ConfigurationError, match=r"^api_key has 3 characters"):
        Settings.read({}, api_key="abc")
    with pytest.raises(ConfigurationError, match=r"^endpoint is 'x'"):
        Settings.read({}, endpoint="x")
    with pytest.raises(ConfigurationError, match=r"^customer_id is empty"):
        Settings.read({}, customer_id="")
    with pytest.raises(ConfigurationError, match=r"^spool_dir is ''; expected is the path of a "):
        Settings.read({}, spool_dir="")


@pytest.mark.parametrize("argument", ["api_key", "endpoint", "account", "customer_id", "spool_dir"])
def test_arguments_of_a_wrong_type(argument: str) -> None:
    """An argument that is no string is refused as any other mistake is, without its value."""
    values: list[Any] = [7, KEY.encode()]
    for value in values:
        with pytest.raises(ConfigurationError) as raised:
            Settings.read({}, **{argument: value})
        assert str(raised.value) == (
            f"{argument} is of type {type(value).__name__}; a string is expected"
        )


def test_an_unusable_key_file(tmp_path: Path) -> None:
    """A key file that holds no key is refused by its name, without its content."""
    file = tmp_path / "key"
    file.write_text("not a key at all")
    with pytest.raises(ConfigurationError) as raised:
        Settings.read({"CMDRDATA_API_KEY_FILE": str(file)})
    assert str(raised.value).startswith(
        f"CMDRDATA_API_KEY_FILE: the content of '{file}' has 16 characters"
    )
    assert "not a key at all" not in str(raised.value)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match="it is not UTF-8 text"):
        Settings.read({"CMDRDATA_API_KEY_FILE": str(file)})


def test_a_key_file_of_an_editor(tmp_path: Path) -> None:
    """A byte order mark is no part of the key."""
    file = tmp_path / "key"
    file.write_text(f"{KEY}\n", encoding="utf-8-sig")
    assert Settings.read({"CMDRDATA_API_KEY_FILE": str(file)}).read_key() == KEY


def test_settings_do_not_show_the_key() -> None:
    """Settings may be printed."""
    assert KEY not in repr(Settings.read({"CMDRDATA_API_KEY": KEY}))
    assert "secret" not in Settings.read({}, endpoint="https://host/?token=secret").destination


@pytest.mark.parametrize(
    ("key", "owner"),
    [
        ("sk-proj-0123456789abcdefghij", "OpenAI"),
        ("sk-ant-api03-0123456789abcdefghij", "Anthropic"),
        ("AIzaSyD-9tSrke72PouQMnMX-a7eZSW0jkFMBWY", "Google"),
        ("gsk_0123456789abcdefghij", "Groq"),
    ],
)
def test_a_key_of_a_provider(key: str, owner: str, tmp_path: Path) -> None:
    """A provider's key is never sent to CmdrData, however it was given, and never shown."""
    file = tmp_path / "key"
    file.write_text(key)
    for environ, argument in (
        ({"CMDRDATA_API_KEY": key}, None),
        ({"CMDRDATA_API_KEY_FILE": str(file)}, None),
        ({}, key),
    ):
        with pytest.raises(ConfigurationError) as raised:
            Settings.read(environ, api_key=argument)
        assert f" begins like a key of {owner}, which nobody else shall get; " in str(raised.value)
        assert key not in str(raised.value)


@pytest.mark.parametrize(
    "variable",
    [
        "CMDRDATA_SPOOL_DIR",
        "CMDRDATA_API_KEY",
        "CMDRDATA_API_KEY_FILE",
        "CMDRDATA_ENDPOINT",
        "CMDRDATA_ACCOUNT",
        "CMDRDATA_CUSTOMER_ID",
        "CMDRDATA_STREAM_USAGE",
    ],
)
def test_what_cannot_be_encoded(variable: str) -> None:
    """Bytes that are no UTF-8 cannot be written down everywhere, so they are refused, and the value is not shown."""
    with pytest.raises(ConfigurationError) as raised:
        Settings.read({variable: "/spool-\udcff-0123456789abcdef"})
    assert f"{variable} holds bytes that are not UTF-8; expected is text in UTF-8" == str(
        raised.value
    )


def test_a_home_that_cannot_be_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the path around it is no UTF-8, the message says which setting helps."""
    monkeypatch.setenv("HOME", "/home/\udcff")
    for environ in ({}, {"XDG_STATE_HOME": "/state-\udcff"}):
        with pytest.raises(ConfigurationError) as raised:
            Settings.read(environ)
        assert (
            "the default spool directory holds bytes that are not UTF-8; expected is text in UTF-8. "
            "Set CMDRDATA_SPOOL_DIR to a directory whose path is" == str(raised.value)
        )
    assert Path("/spool") == Settings.read({"CMDRDATA_SPOOL_DIR": "/spool"}).spool_dir


UNKNOWN = {
    "CMDRDATA_SPOOLDIR": "did you mean CMDRDATA_SPOOL_DIR?",
    "CMDRDATA_SPOOL": "did you mean CMDRDATA_SPOOL_DIR?",
    "CMDRDATA_APIKEY": "did you mean CMDRDATA_API_KEY?",
    "CMDRDATA_KEY_FILE": "did you mean CMDRDATA_API_KEY_FILE?",
    "CMDRDATA_ENABLE": "did you mean CMDRDATA_ENABLED?",
    "CMDRDATA_CUSTOMER": "did you mean CMDRDATA_CUSTOMER_ID?",
    "CMDRDATA_END_POINT": "did you mean CMDRDATA_ENDPOINT?",
    "cmdrdata_account": "did you mean CMDRDATA_ACCOUNT?",
    "CMDR_DATA_ACCOUNT": "did you mean CMDRDATA_ACCOUNT?",
    "CMDRDATA-ACCOUNT": "did you mean CMDRDATA_ACCOUNT?",
    "CMDRDATAACCOUNT": "did you mean CMDRDATA_ACCOUNT?",
    "CMDRDATA_URL": "here it is called CMDRDATA_ENDPOINT, which takes the full URL to POST events to",
    "CMDRDATA_COLOUR": "the settings are CMDRDATA_API_KEY, CMDRDATA_API_KEY_FILE, ",
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_unknown_variables(name: str) -> None:
    """A variable that is meant for us and has no effect is told, with what may be meant, and without its value."""
    [message] = unknown_variables({name: "secret", "PATH": "/bin", **dict.fromkeys(NAMES, "x")})
    assert message.startswith(f"{name} is no setting and has no effect; {UNKNOWN[name]}")
    assert "secret" not in message


@pytest.mark.parametrize(
    "name",
    [
        "CMDRDATA_SERVICE_HOST",
        "CMDRDATA_SERVICE_PORT",
        "CMDRDATA_SERVICE_PORT_HTTP",
        "CMDRDATA_PORT",
        "CMDRDATA_PORT_443_TCP_ADDR",
        "CMDRDATA_DRAIN_SERVICE_HOST",
        "CMD",
        "CMDR",
        "COMMANDER_DATA",
    ],
)
def test_variables_of_others(name: str) -> None:
    """What Kubernetes sets for a service called cmdrdata, and what is not meant for us, is not told."""
    assert [] == unknown_variables({name: "x", "CMDRDATA_EMPTY": " "})


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("app.localhost", False),
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("example.com", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    """Only what cannot leave this machine is loopback."""
    assert is_loopback(host) is expected


def test_every_variable_is_documented() -> None:
    """The README lists exactly the variables that are known: the constants, each of which says its own name."""
    readme = (Path(__file__).parent.parent / "README.md").read_text()
    constants = {name: value for name, value in vars(settings).items() if "CMDRDATA_" in name}
    assert constants == {name: name for name in NAMES}
    assert sorted(NAMES) == sorted(re.findall(r"^\| `(\w+)` \|", readme, re.MULTILINE))
