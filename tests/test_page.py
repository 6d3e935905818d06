"""The page in a real browser, offline: a reviewer enrols by voice, speaks, checks and revokes.

SAYSO_PICTURES=FOLDER also takes the pictures of docs/reviewers.md.
"""

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
pytest.importorskip("faster_whisper", reason="the extra `enrol` is not installed")

from conftest import Clock
from sayso.inference.consent import session
from sayso.inference.store.checking import verify
from sayso.inference.store.store import Store
from sayso.model.audio import resample
from sayso.model.bundle import BUNDLED
from sayso.service import voices
from sayso.service.house import Settings
from served import serving
from test_enrol import READING, SPRING, WORDS

MISSING = "NOT TESTED: the page. Install the extra `page` and chromium."
playwright: Any = pytest.importorskip("playwright.sync_api", reason=MISSING)
axe: Any = pytest.importorskip("axe_playwright_python.sync_playwright", reason=MISSING)
expect = playwright.expect
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
if CHROMIUM is None:
    pytest.skip(MISSING, allow_module_level=True)
if not (BUNDLED / "codec" / "config.json").is_file():
    pytest.skip(f"no bundled model: {BUNDLED} is missing", allow_module_level=True)
TIMEOUT = 900_000  # ms
LENGTH = """(own) => new Promise((done) => {
    const told = () => own.duration && done(own.duration);
    own.addEventListener("loadedmetadata", told);
    told();
})"""
PICTURES = os.environ.get("SAYSO_PICTURES")
ROOM = 0.5  # seconds of a quiet room before and behind the reading


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """Philip's consent in a quiet room, as a file."""
    read, rate = soundfile.read(READING, dtype="float32")
    whole = np.pad(resample(read, rate, 48_000), int(48_000 * ROOM))
    whole += 3e-4 * np.random.default_rng(0).standard_normal(len(whole)).astype(np.float32)
    soundfile.write(tmp_path / "recording.wav", whole, 48_000, subtype="PCM_16")
    return tmp_path / "recording.wav"


@pytest.fixture
def browser(recording: Path) -> Iterator[Any]:
    """Chromium, whose microphone hears the recording over and over."""
    arguments = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    arguments += [f"--use-file-for-fake-audio-capture={recording}"]
    arguments += ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def look(page: Any, name: str) -> None:
    """No serious fault of accessibility in either theme; pictures, if they are asked for."""
    for theme in ("dark", "light"):
        page.emulate_media(color_scheme=theme)
        found = axe.Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        said = [(each["id"], each["nodes"][0]["html"]) for each in serious]
        assert not said, (name, theme, said)
        for width in (390, 1000):
            page.set_viewport_size({"width": width, "height": 800})
            wide = page.evaluate("document.documentElement.scrollWidth")
            assert wide <= width, (name, theme, wide)
            if PICTURES:
                path = Path(PICTURES) / f"{name}-{theme}-{width}.png"
                page.screenshot(path=path, full_page=True)


@pytest.mark.slow
def test_a_reviewer_enrols_speaks_checks_and_revokes(
    browser: Any, recording: Path, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    clock.now = SPRING
    monkeypatch.setattr(session, "draw_words", lambda statement: WORDS)
    if not PICTURES:  # a busy machine takes longer than a reader may
        monkeypatch.setattr(voices, "VALID_SECONDS", 3600)
    settings = Settings(home=tmp_path / "home", controller="Gregson")
    with serving(settings) as (url, house):
        token = house.tokens.create("Ernest", "reviewer", ("nobody",))
        context = browser.new_context(permissions=["microphone"], reduced_motion="reduce")
        page = context.new_page()
        page.set_default_timeout(TIMEOUT)
        expect.set_options(timeout=TIMEOUT)
        wrong: list[str] = []
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda each: wrong.append(each.url) if url not in each.url else None)
        page.goto(url)
        look(page, "token")
        page.get_by_label("Token, as it was given to you").fill(token)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Speak")).to_be_visible()
        expect(page.get_by_text("Nobody says what you hear here")).to_be_visible()

        page.get_by_role("link", name="Enrol").click()
        page.get_by_label("Your name").fill("Philip")
        page.get_by_label("What for").fill("business")
        expect(page.get_by_label("Who may use it")).to_have_value("Ernest")
        look(page, "enrol")
        page.get_by_role("button", name="Show me what to read").click()
        expect(page.locator("#words")).to_have_text(", ".join(WORDS))
        # On a busy machine Chromium's microphone has holes: what it heard is not sent.
        began = time.monotonic()
        page.get_by_role("button", name="Record").click()
        expect(page.get_by_label("Level of the microphone")).to_be_visible()
        expect(page.locator("#level-said")).to_have_text("good")  # the meter moves
        look(page, "enrol-read")
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("button", name="Record again")).to_be_visible()
        assert 0.5 < page.locator("#own").evaluate(LENGTH) < time.monotonic() - began + 1
        gapped = tmp_path / "gapped.wav"
        sound, rate = soundfile.read(recording, dtype="float32")
        sound[3 * rate : 3 * rate + rate // 5] = 0
        soundfile.write(gapped, sound, rate, subtype="PCM_16")
        page.get_by_label("or choose a file").set_input_files(gapped)
        expect(page.locator("#loudness")).to_contain_text("a gap of 200 ms")
        page.get_by_label("or choose a file").set_input_files(recording)
        expect(page.locator("#loudness")).to_contain_text("Loud enough")
        page.get_by_role("button", name="Send for the checks").click()
        done = page.locator("#enrol-done h2")
        expect(done).to_be_visible()
        assert "is enrolled" in done.inner_text(), page.locator("#enrol").inner_text()
        voice = done.inner_text().split()[2]
        assert voice.startswith("philip-")
        expect(page.get_by_role("list", name="The checks")).to_contain_text("fresh words")
        look(page, "enrolled")

        page.get_by_role("link", name="Speak").click()
        page.get_by_label("Voice", exact=True).select_option(voice)
        expect(page.get_by_label("For what")).to_have_value("business")
        page.get_by_label("What is to be said").fill("The cat sat on the mat.")
        page.get_by_role("button", name="Speak").click()
        expect(page.get_by_role("heading", name="Said, synthetically")).to_be_visible()
        expect(page.locator("#said-text mark").first).to_be_visible()  # it plays
        look(page, "speak")
        with page.expect_download() as saving:
            page.get_by_role("link", name="Download").click()
        saving.value.save_as(tmp_path / "said.wav")

        page.get_by_role("link", name="Check a file").click()
        page.locator("#file").set_input_files(tmp_path / "said.wav")
        expect(page.locator("#verdict")).to_contain_text("Made here")
        expect(page.locator("#found-facts")).to_contain_text(f"in the voice {voice}, for business")
        expect(page.locator("#legend")).to_contain_text("PerTh watermark")
        look(page, "check")

        page.get_by_role("link", name="Ledger").click()
        page.get_by_role("button", name="Verify the store").click()
        expect(page.locator("#ledger-good")).to_contain_text("Good")
        look(page, "ledger")

        page.get_by_role("link", name="Voices").click()
        card = page.get_by_role("article", name=f"Voice {voice}")
        expect(card).to_contain_text("Philip allows Gregson")
        card.get_by_role("button", name="Receipt and outputs").click()
        expect(card).to_contain_text("Made in it (1)")
        look(page, "voices")
        card.get_by_role("button", name=f"Take back {voice}").click()
        look(page, "revoke")
        page.get_by_role("button", name="Take the consent back").click()
        expect(card).to_contain_text("Taken back on")

        # Whoever still has the old page open is refused by the gate, in words.
        refusal = page.evaluate(
            """async (voice) => {
                 const api = await import("/page/api.js");
                 const json = { model: "sayso-mini", input: "Again.", voice, purpose: "business" };
                 return api.ask("/v1/audio/speech", { method: "POST", json }).catch((e) => e.code);
               }""",
            voice,
        )
        assert refusal == "voice-revoked"
        page.get_by_role("link", name="Speak").click()
        expect(page.get_by_label("Voice", exact=True)).not_to_contain_text(voice)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("heading", name="Your token")).to_be_visible()
        refused = [each for each in wrong if "403" in each]  # the browser's own note of it
        assert len(refused) == 1 and wrong == refused
    with Store.open(settings.home) as store:
        verify(store)
    assert not list((settings.folder / "spool").iterdir())
