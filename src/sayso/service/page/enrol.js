import { $, Refused, complain, day, el, save, say, told, waiting } from "./api.js";
import { Recorder } from "./record.js";
import { decode } from "./draw.js";

const QUIET = 0.05;
const SECONDS_LEFT = [60, 30, 10];
let me, session, timer, recorder, recording;

export function show(who) {
  me = who;
  $("controller").value ||= who.controller ?? "";
  $("users").value ||= who.name;
}

const list = (id) => $(id).value.split(",").map((part) => part.trim()).filter(Boolean);
const number = (id) => ($(id).value ? Number($(id).value) : null);

async function begin(event) {
  event.preventDefault();
  complain($("enrol-error"), null);
  const json = {
    speaker: $("speaker").value.trim(), purposes: list("for-what"), users: list("users"), days: number("days"),
    controller: $("controller").value.trim(), max_uses: number("uses"), max_characters: number("letters"), may_alter: $("alter").checked,
  };
  try {
    session = await told("/v1/consents", { method: "POST", json });
  } catch (error) {
    return complain($("enrol-error"), error);
  }
  $("statement").textContent = session.statement;
  $("words").textContent = session.words.join(", ");
  turn(true);
  const until = performance.now() + session.seconds * 1000; // by our own clock: the server has another
  clearInterval(timer);
  timer = setInterval(() => tick(until), 500);
  tick(until);
  $("record").focus();
}

function tick(until) {
  const left = Math.max(0, Math.round((until - performance.now()) / 1000));
  $("left").textContent = `${Math.floor(left / 60)}:${String(left % 60).padStart(2, "0")}`;
  if (SECONDS_LEFT.includes(left)) $("time-said").textContent = `${left} seconds left`;
  if (left) return;
  turn(false);
  complain($("enrol-error"), new Refused({ message: "The two minutes are over. Begin again: there will be fresh words.", code: "session-expired" }));
}

function turn(reading) {
  $("enrol-done").hidden = true;
  $("enrol-ask").hidden = reading;
  $("enrol-read").hidden = !reading;
  if (!reading) clearInterval(timer);
  if (recorder) recorder.stop().catch(() => {});
  recorder = recording = null;
  $("record").textContent = "Record";
  $("level-box").hidden = $("recorded").hidden = true;
}

async function record() {
  if (recorder) {
    const blob = await recorder.stop();
    recorder = null;
    $("record").textContent = "Record again";
    $("level-box").hidden = true;
    return heard(blob);
  }
  $("recorded").hidden = true;
  const fresh = new Recorder((peak) => {
    $("level").value = peak;
    $("level-said").textContent = peak < QUIET ? "too soft, or silence" : peak > 0.97 ? "too loud" : "good";
  });
  try {
    await fresh.start();
  } catch (error) {
    return complain($("enrol-error"), new Refused({ message: "No microphone can be used here. Allow it, or choose a file.", code: error.name }));
  }
  complain($("enrol-error"), null);
  recorder = fresh;
  $("record").textContent = "Stop";
  $("level-box").hidden = false;
}

async function heard(blob) {
  recording = blob;
  $("own").src = URL.createObjectURL(blob);
  $("recorded").hidden = false;
  const audio = await decode(blob).catch(() => null);
  const peak = audio ? audio.getChannelData(0).reduce((most, sample) => Math.max(most, Math.abs(sample)), 0) : null;
  const gap = audio ? longestGap(audio) : 0;
  $("loudness").textContent = peak === null ? "Your browser cannot play this; it can be sent." : peak < QUIET
    ? "This is very soft: go closer to the microphone and record again."
    : peak > 0.97 ? "This is too loud: go further away and record again."
    : gap > me.limits.longest_gap_ms ? `It has a gap of ${gap.toFixed(0)} ms, which is refused as a cut: close other programs and record again.`
    : `Loud enough, ${audio.duration.toFixed(0)} s. Listen to it, then send it.`;
  say($("loudness").textContent);
}

// Milliseconds between movements, as the service measures them: a busy computer drops samples.
function longestGap(audio) {
  const samples = audio.getChannelData(0);
  let longest = 0;
  let moved = null;
  for (let i = 1; i < samples.length; i++) {
    if (Math.abs(samples[i] - samples[i - 1]) <= 2 ** -15) continue;
    if (moved !== null) longest = Math.max(longest, i - moved);
    moved = i;
  }
  return (1000 * longest) / audio.sampleRate;
}

async function send() {
  const form = new FormData();
  form.append("file", recording, "recording");
  clearInterval(timer); // from here on the service keeps the time
  $("send").disabled = true;
  try {
    const taken = await waiting($("enrol-wait"), "Listening to it, word by word:", () =>
      told(`/v1/consents/${session.id}/recording`, { method: "POST", form }));
    result(taken.checks, [
      el("h2", { tabindex: -1 }, `The voice ${taken.voice} is enrolled`),
      el("p", {}, `It may be used until ${day(taken.expires)}. ${taken.note}`),
      el("button", { class: "main", onclick: () => save(`${taken.voice}.jws`, taken.receipt) }, "Download your receipt"),
      el("p", { class: "hint" }, "Keep it: it proves what you allowed, and what you did not."),
    ]);
  } catch (error) {
    complain($("enrol-error"), error);
    if (error.code === "input") return; // no audio: the session is not used up
    const failed = error.checks?.find((check) => !check.passed);
    const why = failed ? `“${failed.name}” was ${failed.score}, the limit is ${failed.limit}. ` : "";
    result(error.checks ?? [], [el("h2", { tabindex: -1 }, "Not enrolled"), el("p", {}, why, "Nothing was kept but a note of the refusal. Begin again when you like: there will be fresh words.")]);
  } finally {
    $("send").disabled = false;
  }
}

// Each check in plain words; of several of one kind the last that was made.
const PLAIN = [
  [/seconds$/, "It is neither too short nor too long"], [/peak$/, "It is loud enough"],
  [/speech$/, "There is speech in it, not noise"], [/^overlap/, "It was never heard here before"],
  [/watermark$/, "No machine's watermark is in it"], [/C2PA$/, "No content credentials of a generator are in it"],
  [/silence$/, "It was not pasted together"], [/click$/, "It has no hard cut"], [/^one speaker/, "One person speaks"],
  [/^words/, "The fresh words are all there, in order"], [/^negations/, "Nothing was denied"],
  [/^(.*): doubt$/, (found) => `The part “${found[1]}” was read as it was shown`], [/quality$/, "It is clear enough to speak from"],
];

function result(checks, head) {
  const lines = new Map();
  for (const check of checks) {
    const [pattern, words] = PLAIN.find(([each]) => each.test(check.name)) ?? [/.*/, check.name];
    const plain = typeof words === "string" ? words : words(check.name.match(pattern));
    lines.set(plain, { check, passed: check.passed && lines.get(plain)?.passed !== false });
  }
  const shown = [...lines].map(([plain, { check, passed }]) =>
    el("li", { class: passed ? "" : "no" }, `${plain}${passed ? "" : ": no"} `, el("span", { class: "hint" }, `(${check.score}, limit ${check.limit})`)));
  const again = el("button", { onclick: () => turn(false) }, "Enrol another voice");
  $("enrol-done").replaceChildren(...head, el("ul", { class: "checks", "aria-label": "The checks" }, ...shown), again);
  turn(false);
  $("enrol-ask").hidden = true;
  $("enrol-done").hidden = false;
  $("enrol-done").querySelector("h2").focus();
}

$("enrol-form").addEventListener("submit", begin);
$("record").addEventListener("click", record);
$("send").addEventListener("click", send);
$("enrol-again").addEventListener("click", () => turn(false));
$("record-file").addEventListener("change", ({ target }) => target.files[0] && heard(target.files[0]));
