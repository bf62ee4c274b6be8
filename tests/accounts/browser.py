"""A real browser for the tests of pages: Chromium without a window, driven by chromedriver."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

from support import require

PHONE = 360
"""Width of a small telephone's screen, in CSS pixels."""


class Chromium:
    """Starts browsers, each with a profile of its own, and ends them."""

    def __init__(self, programs: tuple[str, str], ended: ExitStack) -> None:
        self._programs = programs
        self._ended = ended

    def __call__(self, width: int = 1280, javascript: bool = True) -> webdriver.Chrome:
        """Start one. width: of the page, in CSS pixels; below 600 it is a telephone's."""
        program, driver = self._programs
        profile = self._ended.enter_context(
            tempfile.TemporaryDirectory(prefix="workshop-browser-", ignore_cleanup_errors=True)
        )
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for argument in (
            "--headless=new",
            f"--user-data-dir={profile}",
            f"--window-size={max(width, 600)},900",
            "--no-first-run",
            "--disable-background-networking",  # it asks its makers for nothing
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",  # a container's may be small
            "--disable-gpu",
            "--no-proxy-server",
            "--hide-scrollbars",
        ):
            options.add_argument(argument)
        if os.geteuid() == 0:
            options.add_argument("--no-sandbox")  # Chromium has none for root
        if not javascript:
            prefs = {"profile.managed_default_content_settings.javascript": 2}
            options.add_experimental_option("prefs", prefs)
        env = {**os.environ, "HOME": profile, "NO_PROXY": "127.0.0.1,localhost"}
        browser = webdriver.Chrome(options, Service(driver, env=env))
        self._ended.callback(browser.quit)
        browser.set_page_load_timeout(60)
        browser.command_executor.client_config.timeout = 70  # of each word to the driver
        if width < 600:
            # not the driver's own emulation: without JavaScript, a click hangs in that
            screen = {"width": width, "height": 740, "deviceScaleFactor": 2, "mobile": True}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        return browser


@pytest.fixture
def chromium() -> Iterator[Chromium]:
    """Give a function that starts browsers: chromium(width, javascript)."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    require(program and driver, "the programs chromium and chromedriver are needed")
    with ExitStack() as ended:
        yield Chromium((str(program), str(driver)), ended)


def too_wide(browser: webdriver.Chrome) -> int:
    """Return by how many pixels the page is wider than the screen."""
    return int(
        browser.execute_script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        )
    )


def picture(browser: webdriver.Chrome, name: str) -> None:
    """Keep what is seen, in the folder WORKSHOP_PICTURES where that is set."""
    folder = os.environ.get("WORKSHOP_PICTURES")
    if folder:
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))
