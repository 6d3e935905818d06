import { $, ask, complain, el, facts, say, told, waiting } from "./api.js";
import { decode, spectrogram, waveform } from "./draw.js";

let me, voices, stopping;

export async function show(who) {
  me = who;
  voices = (await told("/v1/voices")).data.filter((voice) => voice.state === "valid");
  const chosen = $("voice").value;
  $("voice").replaceChildren(...voices.map((voice) => el("option", { value: voice.id }, voice.id)));
  if (voices.some((voice) => voice.id === chosen)) $("voice").value = chosen;
  $("speak-form").querySelector(".main").disabled = !voices.length || me.role === "speaker";
  $("text").maxLength = me.limits.characters;
  describe();
  count();
  if (me.role === "speaker") $("voice-says").textContent = "A speaker's token enrols and revokes; it does not speak.";
}

function describe() {
  const voice = voices.find((each) => each.id === $("voice").value);
  if (!voice) return ($("voice-says").textContent = "There is no voice for you yet: enrol one.");
  const open = voice.purposes.includes("*");
  $("purposes").replaceChildren(...(open ? ["research"] : voice.purposes).map((value) => el("option", { value })));
  if (!open && !voice.purposes.includes($("purpose").value)) $("purpose").value = voice.purposes[0];
  $("purpose").value ||= "research";
  const whose = voice.basis === "synthetic" ? "A voice that the model made up; nobody's." : `${voice.speaker}'s voice, with their consent.`;
  const not = voice.for_you ? "" : " Its receipt does not name you: it will refuse.";
  $("voice-says").textContent = `${whose} ${voice.days_left < 3650 ? `${voice.days_left} days left.` : ""}${not}`;
}

const count = () => ($("count").textContent = `${$("text").value.length} of ${me?.limits.characters ?? "?"} characters`);

async function speak(event) {
  event.preventDefault();
  complain($("speak-error"), null);
  $("said").hidden = true;
  const format = $("format").value;
  const json = {
    model: me.model, input: $("text").value, voice: $("voice").value, purpose: $("purpose").value,
    response_format: format, speed: Number($("speed").value), samples: Number($("samples").value),
  };
  if ($("seed").value !== "") json.seed = Number($("seed").value);
  stopping = new AbortController();
  const button = $("speak-form").querySelector(".main");
  button.disabled = true;
  $("stop-speaking").hidden = false;
  try {
    const answer = await waiting($("speak-wait"), "Making it, marking it, looking at both marks:", () =>
      ask("/v1/audio/speech", { method: "POST", json, signal: stopping.signal }));
    await play(answer, json);
  } catch (error) {
    if (error.name !== "AbortError") complain($("speak-error"), error);
  } finally {
    button.disabled = false;
    $("stop-speaking").hidden = true;
  }
}

async function play(answer, json) {
  const blob = await answer.blob();
  const header = (name) => answer.headers.get(`X-Sayso-${name}`);
  const address = URL.createObjectURL(blob);
  const name = `synthetic-${header("Ledger-Id").slice(0, 10)}.${json.response_format}`;
  URL.revokeObjectURL($("player").src);
  $("player").src = address;
  Object.assign($("download"), { href: address, download: name });
  $("manifest").hidden = json.response_format !== "opus";
  if (!$("manifest").hidden) {
    const manifest = await (await ask(`/v1/manifests/${header("Ledger-Id")}`)).blob();
    Object.assign($("manifest"), { href: URL.createObjectURL(manifest), download: `${name}.c2pa` });
  }
  facts($("said-facts"), [
    ["Voice", `${json.voice}, synthetic, for ${json.purpose}`], ["Length", `${Number(header("Seconds")).toFixed(1)} s`],
    ["Marks", "inaudible watermark and C2PA manifest, both found again"],
    ["Ledger", header("Ledger-Id")], ["Seed", header("Seed")],
  ]);
  $("said").hidden = false;
  say("Said. The player follows the text.");
  follow(json.input);
  const audio = await decode(blob).catch(() => null);
  for (const id of ["said-wave", "said-spectrum"]) $(id).hidden = !audio;
  if (audio) {
    waveform($("said-wave"), audio);
    spectrogram($("said-spectrum"), audio);
  }
  $("player").play().catch(() => {}); // a browser may want a click
}

// Marks about the word that is being said: by its share of the letters.
function follow(text) {
  const words = text.split(/(\s+)/).map((word) => el("span", {}, word));
  $("said-text").replaceChildren(...words);
  const player = $("player");
  player.ontimeupdate = () => {
    const place = (player.currentTime / player.duration) * text.length;
    let end = 0;
    let found = false;
    for (const word of words) {
      end += word.textContent.length;
      const now = !found && place < end && !player.ended && word.textContent.trim() !== "";
      found ||= now;
      const inner = now ? el("mark", {}, word.textContent) : word.textContent;
      if (now !== (word.firstElementChild !== null)) word.replaceChildren(inner);
    }
  };
}

$("speak-form").addEventListener("submit", speak);
$("stop-speaking").addEventListener("click", () => stopping.abort());
$("voice").addEventListener("change", describe);
$("text").addEventListener("input", count);
