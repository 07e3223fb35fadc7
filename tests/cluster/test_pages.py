"""Prefect's pages of a run whose stages are Jobs, in Chromium."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.cluster import projects
from tests.cluster.conftest import Place
from tests.cluster.test_jobs import hold, jobs, let_go, running_pod, start
from tests.integration.tasks import pages, toy
from tests.integration.tasks.consoles import Console
from tests.integration.tasks.processes import wait_for

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def page() -> Iterator[Page]:
    with pages.chromium() as browser:
        opened = browser.new_page(viewport={"width": 1400, "height": 1100})
        opened.set_default_timeout(pages.TIMEOUT_MS)
        yield opened


def test_a_stage_says_on_its_page_for_what_it_waits_and_then_where_it_runs(
    place: Place, console: Console, page: Page, tmp_path: Path
) -> None:
    projects.set_resources(place.root, "source", cpu=1.5)
    hold(place)
    neighbour = start(place, "source")
    wait_for(lambda: running_pod(place))
    neighbour.kill()
    neighbour.communicate()
    (holds_the_quota,) = jobs(place)
    toy.set_param(place.root, "source", text="P", num_steps=20, step_s=0.2)
    run = console.start("pipeline")
    page.goto(console.api.removesuffix("/api"))
    page.wait_for_url("**/dashboard*")  # of the newer of its two faces
    at = f"{page.url.split('/dashboard')[0]}/runs/flow-run/{run}"
    wait_for(lambda: "source-job" in [item["key"] for item in console.of_run(run, "artifacts")])
    page.goto(at)
    expect(page.get_by_text("queued: place 1 of 1; ").first).to_be_visible()
    pages.shoot(page, "cluster-queued", tmp_path)
    pages.open_artifact(page, "source-job")
    expect(page.get_by_text("insufficient unused quota for cpu").first).to_be_visible()
    pages.shoot(page, "cluster-waits", tmp_path)
    let_go(place)
    projects.kubectl("delete", "job", holds_the_quota["metadata"]["name"], "-n", place.namespace)
    page.goto(at)
    expect(page.get_by_text("20/20 steps 100%").first).to_be_visible()
    expect(page.get_by_text("Completed", exact=True).first).to_be_visible()
    pages.shoot(page, "cluster-run", tmp_path)
    pages.open_artifact(page, "source-job")
    expect(page.get_by_text("running on dev-1").first).to_be_visible()
    pages.shoot(page, "cluster-job", tmp_path)
    (told,) = [a for a in console.of_run(run, "artifacts") if a["key"] == "source-job"]
    assert "queued: place 1 of 1; " in told["data"]
    assert "running on dev-1" in told["data"]
