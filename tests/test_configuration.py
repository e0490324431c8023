"""Configuration: config.yaml is validated as a whole, is typed, and never prints a password."""

import sys
from types import ModuleType

import pytest
import sqlalchemy as sa
from hypothesis import example, given
from hypothesis import strategies as st

from noventa import SETTINGS, Config, ConfigError

KEY = "0123456789abcdef0123456789abcdef"
DOCUMENTED = """
database: "sqlite:///./noventa.db"
debug: false
secret_keys: ["${NOVENTA_SECRET_KEY}"]
session: {cookie_name: noventa_session, max_age: 1209600, secure: false, same_site: lax,
          domain: null}
server: {host: 127.0.0.1, port: 8000, threads: 8}
limits: {body: 10485760, memory: 1048576, fields: 1000, files: 100}
trusted_origins: []
log_level: info
"""  # fmt: skip


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch):
    monkeypatch.delenv("NOVENTA_DEBUG", raising=False)
    monkeypatch.setenv("NOVENTA_SECRET_KEY", KEY)


def load(folder, text):
    (folder / "config.yaml").write_text(text, "utf-8")
    return Config.load(folder)


def problems_of(document, root="."):
    with pytest.raises(ConfigError) as raised:
        Config.from_mapping(document, root)
    return str(raised.value)


# Settings and defaults


def test_the_documented_file_contains_the_defaults(tmp_path):
    documented = load(tmp_path, DOCUMENTED)
    assert documented["secret_keys"] == (KEY,)
    assert {**documented.values, "secret_keys": ()} == Config.from_mapping({}, tmp_path).values


@pytest.mark.parametrize("text", ["", "# nothing but a comment\n", "session:\n"])
def test_an_empty_file_yields_the_defaults(tmp_path, text):
    assert load(tmp_path, text).values == {setting.name: setting.default for setting in SETTINGS}


def test_the_table_of_settings_is_complete():
    names = [setting.name for setting in SETTINGS]
    assert len(set(names)) == len(names)
    assert all(setting.help and setting.type for setting in SETTINGS)
    assert all(setting.default in setting.choices for setting in SETTINGS if setting.choices)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"databse": "x"}, "databse is not a setting; did you mean 'database'?"),
        ({"session": {"max_aeg": 1}}, "session.max_aeg is not a setting; did you mean 'max_age'?"),
        ({"limits": {"speed": 1}}, "limits.speed is not a setting; known: body, fields, files,"),
        ({1: 2}, "1 is not a setting"),
    ],
)  # fmt: skip
def test_an_unknown_key_is_reported_with_the_nearest_match(document, problem):
    assert f"config.yaml: {problem}" in problems_of(document)


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"server": {"port": "ten"}}, "server.port is 'ten'; expected a whole number."),
        ({"server": {"port": 8.5}}, "server.port is 8.5; expected a whole number."),
        ({"server": {"port": True}}, "server.port is True; expected a whole number."),
        ({"database": {"pool_size": "ten"}}, "database.pool_size is 'ten'; expected a whole"),
        ({"server": {"port": ["${HOME}"]}}, "server.port is ['"),
        ({"server": {"threads": -1}}, "server.threads is -1; expected a whole number."),
        ({"debug": "yes"}, "debug is 'yes'; expected true or false."),
        ({"debug": 1}, "debug is 1; expected true or false."),
        ({"log_level": 3}, "log_level is 3; expected a string."),
        ({"trusted_origins": "https://a"}, "trusted_origins is 'https://a'; expected a list of"),
        ({"trusted_origins": [1]}, "trusted_origins is [1]; expected a list of strings."),
        ({"headers": ["a"]}, "headers is ['a']; expected a mapping of names to values."),
        ({"headers": {1: "a"}}, "headers is {1: 'a'}; expected a mapping of names to values."),
        ({"session": "long"}, "session is 'long'; expected a mapping of names to values."),
        ({"log_level": "loud"}, "log_level is 'loud'; expected one of debug, info, warning, error"),
        ({"log_level": "x" * 90}, f"log_level is '{'x' * 56}…; expected one of debug"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_reported_with_key_value_and_expectation(document, problem):
    assert f"config.yaml: {problem}" in problems_of(document)


def test_all_problems_in_a_file_are_reported_together():
    text = problems_of({"debug": "yes", "sesion": {}, "secret_keys": ["short"], "log_level": 1})
    assert [line.split()[1] for line in text.splitlines()] == [
        "debug", "sesion", "log_level",  "secret_keys[0]",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"secret_keys": [KEY, "k" * 31]}, "secret_keys[1] has 31 characters; expected at"),
        ({"secret_keys": ["a" * 64]}, "secret_keys[0] has too few different characters (1)"),
        ({"secret_keys": ["abcdefg" * 9]}, "secret_keys[0] has too few different characters (7)"),
        ({"session": {"cookie_name": "__Host-s"}}, "session.cookie_name starts with __Host-"),
        ({"session": {"same_site": "none"}}, "session.same_site is 'none'"),
        ({"session": {"cookie_name": "my cookie"}}, "session.cookie_name is 'my cookie'"),
        ({"session": {"cookie_name": ""}}, "session.cookie_name is ''"),
        ({"server": {"threads": 0}}, "server.threads is 0"),
        ({"server": {"port": 65536}}, "server.port is 65536; expected 0 to 65535."),
        ({"headers": {"X-Note": "a\r\nb"}}, "headers: 'X-Note' or its value has characters"),
        ({"headers": {"X Note": "a"}}, "headers: 'X Note' or its value has characters"),
        ({"secret_keys": ["${NOVENTA-SECRET-KEY-OF-PRODUCTION}"]}, "secret_keys[0] has an invalid"),
    ],
)  # fmt: skip
def test_unusable_settings_are_rejected_at_startup(document, problem):
    assert f"config.yaml: {problem}" in problems_of(document)


def test_the_cookie_domain_must_be_a_hostname():
    for domain in ("example.com; Path=/x", "a b", "x\r\ny"):
        with pytest.raises(ConfigError, match=r"session\.domain is .*; expected a name"):
            Config.from_mapping({"session": {"domain": domain}}, ".")
    assert Config.from_mapping({"session": {"domain": ".example.com"}}, ".")["session.domain"]


def test_a_host_prefixed_cookie_is_accepted_if_secure_and_without_a_domain():
    session = {"cookie_name": "__Host-s", "secure": True, "same_site": "none"}
    assert Config.from_mapping({"session": session}, ".")["session.secure"] is True


def test_secrets_never_appear_in_error_messages():
    text = problems_of(
        {
            "secret_keys": "hunter2hunter2",
            "database": {"password": 2222, "options": "password=hunter2"},
        }
    )
    assert "hunter2" not in text
    assert "2222" not in text
    assert "secret_keys has the wrong type; expected a list of strings." in text


# Variables


def test_variables_are_substituted_in_every_string(monkeypatch):
    monkeypatch.setenv("NAME", "b.db")
    monkeypatch.setenv("ORIGIN", "https://a.example")
    document = {
        "database": {"driver": "sqlite", "name": "a-${NAME}", "options": {"mode": "${NAME}"}},
        "trusted_origins": ["${ORIGIN}", "https://${HOST_OF_B:-b.example}"],
    }
    config = Config.from_mapping(document, "/srv")
    assert config.database_url.database == "/srv/a-b.db"
    assert config.database_url.query["mode"] == "b.db"
    assert config["trusted_origins"] == ("https://a.example", "https://b.example")


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("${X:-8001}", None, 8001),
        ("${X:-8001}", "", 8001),
        ("${X:-8001}", "9000", 9000),
        ("${X}", " 9000 ", 9000),
        ("80${X}", "01", 8001),
        ("${X}", "010", 10),
    ],
)
def test_a_variable_is_converted_to_a_number_where_one_is_expected(
    monkeypatch, text, value, expected
):
    monkeypatch.delenv("X", raising=False)
    if value is not None:
        monkeypatch.setenv("X", value)
    assert Config.from_mapping({"server": {"port": text}}, ".")["server.port"] == expected


@pytest.mark.parametrize("value", ["[", "ten", "8:00", "0x10", "1_0", "-1", "²", ""])
def test_a_non_numeric_variable_is_an_error(monkeypatch, value):
    monkeypatch.setenv("X", value)
    text = problems_of({"server": {"port": "${X}"}})
    assert text == f"config.yaml: server.port is {value!r}, from ${{X}}; expected a whole number."


@pytest.mark.parametrize(
    ("value", "expected"),
    [("1", True), ("true", True), ("Yes", True), ("on", True), ("0", False), ("False", False),
     ("no", False), ("off", False)],
)  # fmt: skip
def test_a_variable_is_converted_to_a_boolean(monkeypatch, value, expected):
    monkeypatch.setenv("X", value)
    assert Config.from_mapping({"debug": "${X}"}, ".")["debug"] is expected


def test_a_missing_variable_is_reported_with_its_key(monkeypatch):
    monkeypatch.delenv("NOVENTA_NOT_SET", raising=False)
    text = problems_of({"secret_keys": ["${NOVENTA_NOT_SET}"], "database": "${NOVENTA_NOT_SET}"})
    assert "config.yaml: secret_keys needs the environment variable NOVENTA_NOT_SET" in text
    assert "config.yaml: database.url needs the environment variable NOVENTA_NOT_SET" in text
    assert "${NOVENTA_NOT_SET:-…}" in text


def test_an_empty_variable_is_not_missing(monkeypatch):
    monkeypatch.setenv("X", "")
    document = {"database": {"driver": "mysql", "user": "root", "password": "${X}", "name": "d"}}
    assert Config.from_mapping(document, ".").database_url.password == ""


def test_a_value_can_be_read_from_a_file(tmp_path):
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "key").write_text(f"\n{KEY} \n")
    (tmp_path / "port").write_text("8080\n")
    text = f"""
secret_keys: ["${{file:secrets/key}}"]
database: {{driver: mysql, user: "me", password: "${{file:{tmp_path}/secrets/key}}", name: d,
           options: {{charset: "${{file:none:-utf8mb4}}"}}}}
server: {{port: "${{file:port}}"}}
"""
    config = load(tmp_path, text)
    assert config["secret_keys"] == (KEY,)
    assert config["server.port"] == 8080
    assert config.database_url.password == KEY
    assert config.database_url.query == {"charset": "utf8mb4"}


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        ({"secret_keys": ["${file:gone.key}"]},
         "file {0}/gone.key, which does not exist; create one with `(umask 077; openssl"),
        ({"database": {"driver": "mysql", "password": "${file:gone}"}},
         "database.password needs the file {0}/gone, which does not exist; create it, or add a"),
        ({"database": {"driver": "mysql", "options": {"ssl": "${file:/gone}"}}},
         "database.options.ssl needs the file /gone, which does not exist"),
        ({"secret_keys": ["${file:.}"]}, "the file {0}, which cannot be read: Is a directory"),
        ({"secret_keys": ["${file:.:-a}"]}, "the file {0}, which cannot be read: Is a directory"),
        ({"secret_keys": ["${file:latin}"]}, "{0}/latin, which cannot be read: 'utf-8' codec can"),
        ({"secret_keys": ["${file:a\0b}"]}, "which cannot be read: embedded null byte"),
        ({"secret_keys": ["${file:empty}"]}, "secret_keys[0] has 0 characters"),
    ],
)  # fmt: skip
def test_an_unreadable_file_is_named_in_the_message(document, problem, tmp_path):
    (tmp_path / "latin").write_bytes(b"\xe9" * 40)
    (tmp_path / "empty").touch()
    assert problem.format(tmp_path) in problems_of(document, tmp_path)


def test_load_accepts_overrides_for_entries_of_the_file(tmp_path):
    text = 'database: "${NOT_SET}"\nsecret_keys: ["${file:gone}"]\nserver: {port: 1}\n'
    (tmp_path / "config.yaml").write_text(text)
    config = Config.load(tmp_path, database="sqlite:///x.db", secret_keys=[KEY])
    assert config.database_url.database == str(tmp_path / "x.db")
    assert (config["secret_keys"], config["server.port"]) == ((KEY,), 1)


def test_a_doubled_dollar_sign_escapes_a_variable():
    document = {"server": {"host": "$${X} and $$ and $X and ${X"}}
    assert Config.from_mapping(document, ".")["server.host"] == "${X} and $$ and $X and ${X"


strings = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@example("a", "${B}$${C}\\1\\g<0>", "b")
@given(
    strings.filter(lambda text: "$" not in text),
    strings,
    strings.filter(lambda text: "$" not in text),
)
def test_the_value_of_a_variable_is_not_expanded_again(monkeypatch, before, value, after):
    monkeypatch.setenv("X", value)
    config = Config.from_mapping({"server": {"host": before + "${X}" + after}}, ".")
    assert config["server.host"] == before + value + after


# The database


@pytest.mark.parametrize("place", [".", "elsewhere"])
def test_a_relative_sqlite_path_is_relative_to_the_file(tmp_path, monkeypatch, place):
    (tmp_path / "project").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / place)
    (tmp_path / "project" / "config.yaml").write_text('database: "sqlite:///./data/a.db"')
    config = Config.load(tmp_path / "project")
    assert config.database_url.database == str(tmp_path / "project" / "data" / "a.db")


@pytest.mark.parametrize(
    ("url", "file", "in_memory"),
    [
        ("sqlite:////srv/a.db", "/srv/a.db", False),
        ("sqlite://", None, True),
        ("sqlite:///:memory:", ":memory:", True),
        ("sqlite:///file:a.db?uri=true", "file:a.db", False),
    ],
)
def test_other_sqlite_paths_are_unchanged(url, file, in_memory):
    config = Config.from_mapping({"database": url}, "/project")
    assert (config.database_url.database, config.in_memory) == (file, in_memory)


def test_a_database_mapping_is_equivalent_to_a_url():
    parts = {"driver": "postgresql", "host": "db", "port": 5433, "user": "ada", "password": "x",
             "name": "shop", "options": {"application_name": "shop"}}  # fmt: skip
    url = "postgresql://ada:x@db:5433/shop?application_name=shop"
    from_parts, from_url = (
        Config.from_mapping({"database": database}, ".") for database in (parts, url)
    )
    assert from_parts.database_url == from_url.database_url


def test_non_string_options_are_passed_to_the_driver_unchanged():
    parts = {"driver": "postgresql", "host": "db", "options": {"prepare_threshold": None, "a": "b"}}
    config = Config.from_mapping({"database": parts}, ".")
    assert config.driver_options == {"prepare_threshold": None}
    assert config.database_url.query == {"a": "b"}


def test_pool_settings_can_accompany_a_url():
    config = Config.from_mapping({"database": {"url": "sqlite:///a.db", "pool_size": 3}}, "/srv")
    assert (config["database.pool_size"], config.database_url.database) == (3, "/srv/a.db")


@example("p@ss:w/or#d%?&=[]\\ é\U0001f600")
@given(strings.filter(lambda text: "${" not in text))
def test_a_password_in_a_mapping_may_contain_any_character(password):
    document = {
        "driver": "postgresql",
        "host": "db",
        "user": "u",
        "password": password,
        "name": "n",
    }
    config = Config.from_mapping({"database": document}, ".")
    assert config.database_url.password == password
    assert sa.make_url(config.database_url.render_as_string(False)).password == password


@pytest.mark.parametrize("name", ["mysql", "mariadb"])
def test_mysql_urls_default_to_pymysql(name):
    config = Config.from_mapping({"database": f"{name}://u:p@h/n"}, ".")
    assert config.database_url.drivername == f"{name}+pymysql"


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:hunter2@db/shop",
        "postgresql://db/shop?user=ada&password=hunter2",
        "mysql://ada:hunter2@db/shop?ssl_key_password=hunter2",
    ],
)
def test_the_password_is_not_in_the_repr(url):
    config = Config.from_mapping({"database": url}, ".")
    assert "hunter2" not in repr(config)
    assert "db/shop" in repr(config)


@pytest.mark.parametrize(
    "url",
    ["hunter2", "", "mysql://ada:hunter2@db:port/shop", "://hunter2@x", "sqlite+hunter2"],
)
def test_an_invalid_database_url_is_rejected_without_being_shown(url):
    text = problems_of({"database": url})
    assert "config.yaml: database is not a URL; expected driver://user:password@host" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("database", "problem"),
    [
        ("postgres://h/n", "database: 'postgres' is not a known driver; did you mean 'postgresql'"),
        ({"driver": "sqlight"}, "database: 'sqlight' is not a known driver; did you mean 'sqlite'"),
        ("sqlite+libsql:///a.db", "database: 'sqlite+libsql' is not supported"),
        ("sqlite+aiosqlite:///a.db", "database: 'sqlite+aiosqlite' is not supported"),
        ("sqlite:///file:a.db?cache=shared&uri=true", "database has cache=shared"),
        ("mysql+nothing://h/n", "database: 'mysql+nothing' is not a known driver"),
        ("oracle+oracledb://h/n", "database: the driver is not installed (No module named"),
        ({"host": "db", "name": "n"}, "database.driver is missing"),
        ({"url": "sqlite:///a.db", "driver": "sqlite"}, "database.url and database.driver"),
        (["mysql://u:hunter2@h"], "database has the wrong type; expected a URL or a mapping"),
    ],
)  # fmt: skip
def test_an_unusable_database_is_reported_with_a_remedy(database, problem):
    text = problems_of({"database": database})
    assert f"config.yaml: {problem}" in text
    assert "hunter2" not in text


@pytest.mark.parametrize(
    ("url", "module", "remedy"),
    [
        ("postgresql+psycopg://h/n", "psycopg", "noventa-wsgi[postgres]"),
        ("postgresql+psycopg2://h/n", "psycopg2", "psycopg2-binary"),
        ("postgresql+pg8000://h/n", "pg8000", "pg8000"),
        ("mysql+pymysql://h/n", "pymysql", "noventa-wsgi[mysql]"),
        ("mysql+mysqldb://h/n", "MySQLdb", "mysqlclient"),
        ("sqlite+pysqlcipher:///a.db", "sqlcipher3", "sqlcipher3-binary"),
    ],
)
def test_a_missing_driver_is_reported_with_its_package(monkeypatch, url, module, remedy):
    for name in (module, f"py{module}"):  # as if it were not installed
        monkeypatch.setitem(sys.modules, name, None)
    assert f"pip install '{remedy}'" in problems_of({"database": url})


def test_an_asynchronous_driver_is_rejected():
    asynchronous = ModuleType("asyncpg")
    sys.modules["asyncpg"] = asynchronous
    try:
        text = problems_of({"database": "postgresql+asyncpg://h/n"})
    finally:
        del sys.modules["asyncpg"]
    assert "the driver asyncpg is asynchronous" in text
    assert "use psycopg or psycopg2 or pg8000" in text


# The file


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("debug: true\ndebug: false\n", "config.yaml: line 2: 'debug' appears twice; remove one."),
        ("session:\n  max_age: 1\n  max_age: 2\n", "config.yaml: line 3: 'max_age' appears twice"),
        ("debug: true\nsession: {max_age: [\n", "config.yaml: line 3: "),
        ("a: b: c", "config.yaml: line 1: mapping values are not allowed here"),
        ("? [a]\n: b\n", "config.yaml: line 1: found unhashable key"),
        ("!!python/object:os.system {}", "config.yaml: line 1: could not determine a constructor"),
        ("- debug", "config.yaml is ['debug']; expected a mapping of names to values."),
        ("debug", "config.yaml is 'debug'; expected a mapping"),
        ("a: \x07", "config.yaml is invalid YAML"),
        ("headers: {X: 2026-99-99}", "config.yaml is invalid YAML: month must be in 1..12"),
        ("a: " + "[" * 600, "is nested too deeply to be read."),
        ("app:\n  a: &a [*a]\n", "config.yaml: line 2: found unconstructable recursive node."),
    ],
)
def test_an_invalid_file_is_reported_with_line_and_reason(tmp_path, text, problem):
    with pytest.raises(ConfigError) as raised:
        load(tmp_path, text)
    assert problem in str(raised.value)


def test_yaml_merge_keys_are_supported(tmp_path):
    text = "server: &s {port: 1, threads: 2}\nlimits: {body: 7}\nsession: {max_age: 3}\n"
    assert load(tmp_path, text)["server.port"] == 1
    with pytest.raises(ConfigError, match=r"session\.port is not a setting"):
        load(tmp_path, text.replace("{max_age: 3}", "{<<: *s, max_age: 3}"))


def test_a_missing_file_is_reported_with_a_remedy(tmp_path):
    with pytest.raises(ConfigError, match=r"config.yaml does not exist; .* --project"):
        Config.load(tmp_path)


def test_a_file_that_is_not_utf_8_is_rejected(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"debug: \xff")
    with pytest.raises(ConfigError, match="cannot be read: 'utf-8' codec"):
        Config.load(tmp_path)
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.yaml").mkdir()
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.load(tmp_path)


@pytest.mark.parametrize(("value", "debug"), [("1", True), ("0", False), ("", True)])
def test_the_variable_noventa_debug_overrides_the_file(tmp_path, monkeypatch, value, debug):
    monkeypatch.setenv("NOVENTA_DEBUG", value)
    assert load(tmp_path, "debug: true" if value != "1" else "")["debug"] is debug


def test_an_invalid_noventa_debug_is_reported(tmp_path, monkeypatch):
    monkeypatch.setenv("NOVENTA_DEBUG", "maybe")
    with pytest.raises(ConfigError, match=r"debug is 'maybe', from \${NOVENTA_DEBUG};"):
        load(tmp_path, "")


@pytest.mark.parametrize(
    "origin",
    ["example.com", "https://", "https://a.example/", "https://a.example/x", "null", "*", "",
     "https://*.example.com", "https://a.example:port", "https://u@a.example", "//a.example",
     "https://a.example https://b.example", "https://a.example?x"],
)  # fmt: skip
def test_a_trusted_origin_that_no_browser_sends_is_rejected(origin):
    expected = r"trusted_origins\[1\] is .*; expected a scheme, a host"
    with pytest.raises(ConfigError, match=expected):
        Config.from_mapping({"trusted_origins": ["https://a.example:8443", origin]}, ".")


@pytest.mark.parametrize(
    "host",
    ["https://a.example", "a.example:80", "*", "*.a.example", "a b", "", ".", "..", "-a", "::1",
     "a.example/", "münchen.example"],
)  # fmt: skip
def test_a_host_that_no_request_can_name_is_rejected(host):
    with pytest.raises(ConfigError, match=r"server.hosts\[1\] is .*; expected a name without"):
        Config.from_mapping({"server": {"hosts": [".a.example", host]}}, ".")
