"""Whatever is sent to the login page, the hub answers in words and goes on."""

from __future__ import annotations

import urllib.parse
import urllib.request

import pytest
from accounts.conftest import PASSWORD, Hubs, Machine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubs import Browser, Hub, _send

EXAMPLES = 150
FIELDS = ("username", "password", "otp", "conversation", "answer0", "new", "next", "x")


@pytest.fixture(scope="module")
def hub(machine: Machine, hubs: Hubs) -> Hub:
    machine.add("wsacct-fay")
    return hubs.start("c.Authenticator.allow_all = True\nc.JupyterHub.log_level = 'WARN'\n")


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@bounded(EXAMPLES)
@given(
    form=st.dictionaries(
        st.sampled_from(FIELDS),
        st.one_of(
            st.sampled_from(["wsacct-fay", "root", PASSWORD, "\\", "corp\\fay", "fay@corp", "%n"]),
            st.text(max_size=400),
            st.binary(max_size=200).map(lambda raw: raw.decode("latin-1")),
        ),
    )
)
def test_forms(hub: Hub, form: dict[str, str]) -> None:
    browser = Browser(hub.root)
    browser.open("/hub/login")
    sent = {name: text.encode("utf8", "surrogatepass") for name, text in form.items()}
    assert browser.open("/hub/login", sent).status in (200, 403, 429)


@bounded(EXAMPLES // 3)
@given(
    body=st.binary(max_size=2000),
    kind=st.sampled_from(
        [
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "multipart/form-data",
            "application/json",
            "",
        ]
    ),
)
def test_bodies(hub: Hub, body: bytes, kind: str) -> None:
    browser = Browser(hub.root)
    browser.open("/hub/login")
    xsrf = next(cookie.value for cookie in browser.jar if cookie.name == "_xsrf")
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(browser.jar))
    request = urllib.request.Request(
        f"{hub.root}/hub/login?_xsrf={urllib.parse.quote(xsrf or '')}",
        data=body,
        headers={"Content-Type": kind, "Accept": "text/html"},
    )
    assert _send(opener.open, request, 60).status in (200, 400, 403, 429)
