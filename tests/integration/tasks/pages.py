"""Prefect's pages in a headless Chromium, and what a person does on them."""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

TIMEOUT_MS = 120_000.0
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    # Drawing a run's graph without a GPU takes a core and a half as long as its page is open.
    *(() if "HEADRACE_SCREENSHOTS" in os.environ else ("--disable-3d-apis",)),
)  # fmt: skip


@contextmanager
def chromium() -> Iterator[Browser]:
    """The machine's own; skips where there is none."""
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("no chromium to press the console's buttons in: apt-get install chromium")
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS, timeout=TIMEOUT_MS)
        yield browser
        browser.close()


def open_form(page: Page, deployment: str) -> None:
    """From any page to the form that starts a run."""
    page.get_by_role("link", name="Deployments").first.click()
    row = page.get_by_role("row").filter(has_text=deployment)
    row.get_by_role("link", name=deployment).first.click()  # the second leads to the flow
    page.get_by_role("button", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Custom run").click()


def submit(page: Page) -> None:
    """Start the run of the open form, and go to its page.

    By its address: the note with the link to it is shown for a moment only. A server that is busy is
    asked again, as a person would.
    """
    for _ in range(30):
        with page.expect_response("**/create_flow_run") as answered:
            page.get_by_role("button", name="Submit").click()
        if answered.value.status != 503:
            break
        time.sleep(1)
    run = answered.value.json()["id"]
    page.goto(f"{page.url.split('/deployments/')[0]}/runs/flow-run/{run}")


def see_tasks(page: Page, states: Mapping[str, str]) -> None:
    """Wait until the tab of the run's page lists tasks of these names in these states, and no other."""
    page.get_by_role("tab", name="Task Runs").click()
    tab = page.get_by_role("tabpanel", name="Task Runs")
    entries = tab.get_by_role("listitem").filter(has=page.get_by_role("navigation"))
    expect(entries).to_have_count(len(states))
    for name, state in states.items():
        entry = entries.filter(has=page.get_by_role("link", name=name, exact=True))
        expect(entry.get_by_text(state, exact=True)).to_be_visible()


def open_artifact(page: Page, key: str) -> None:
    """From the run's page over the key's, which lists all of that key, to the artifact."""
    page.get_by_role("tab", name="Artifacts").click()
    # A stage that is tried again has one of each attempt; the key's page has the newest first.
    page.get_by_role("tabpanel", name="Artifacts").get_by_role("link", name=key).first.click()
    page.wait_for_url("**/artifacts/key/**")
    page.get_by_role("main").locator("a[href*='/artifacts/artifact/']").first.click()


def shoot(page: Page, name: str, folder: Path) -> None:
    """A picture of the page in `folder`, or in HEADRACE_SCREENSHOTS for someone to look at."""
    kept = Path(os.environ.get("HEADRACE_SCREENSHOTS", folder))
    page.screenshot(path=kept / f"{name}.png", full_page=True)


def write_result(folder: Path) -> None:
    """What evaluate publishes, in small."""
    from matplotlib.image import imsave
    from numpy import linspace

    folder.mkdir(parents=True)
    (folder / "results.md").write_text(
        "# Results\n\n|  | base |\n| --- | --- |\n| bits per byte | 2.5 ± 0.1 |\n\n## Measured\n\nso\n"
    )
    imsave(folder / "results.png", linspace(0, 1, 64 * 32).reshape(32, 64))
