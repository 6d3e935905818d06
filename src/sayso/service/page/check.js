import { $, complain, el, facts, told, time, waiting } from "./api.js";
import { decode, waveform } from "./draw.js";

const NAMES = { perth: "PerTh watermark", keyed: "this service's own mark", fixed: "older mark", audioseal: "AudioSeal watermark" };
const STATES = {
  trusted: "signed here, unchanged", valid: "whole, but by a signer unknown here",
  invalid: "changed since it was signed, or badly signed", none: "none",
};

async function look(files) {
  const sidecar = [...files].find((file) => file.name.endsWith(".c2pa"));
  const file = [...files].find((each) => each !== sidecar);
  if (!file) return;
  complain($("check-error"), null);
  $("found").hidden = true;
  const form = new FormData();
  form.append("file", file, "file");
  if (sidecar) form.append("manifest", sidecar, "manifest");
  try {
    const found = await waiting($("check-wait"), "Looking for marks:", () => told("/v1/detect", { method: "POST", form }));
    await report(found, file);
  } catch (error) {
    complain($("check-error"), error);
  }
}

function verdict(found) {
  if (found.ours) return "Made here: synthetic speech of this service";
  if (found.watermark.copied_from.length) return "A mark of ours, copied onto another sound";
  if (found.verdict === "marked") return "Marked, by us or by somebody else";
  if (found.verdict === "unsure") return "Not sure: PerTh's mark alone, which other speech may have by chance";
  if (found.c2pa.state !== "none") return "It has content credentials of others, and no mark of ours";
  return "No mark found. That does not mean that a person spoke.";
}

async function report(found, file) {
  const marks = Object.entries(found.watermark.marks).filter(([, mark]) => mark.present);
  const where = (mark) => mark.where.map(([from, to]) => `${from.toFixed(1)}–${Math.min(to, found.seconds).toFixed(1)} s`).join(", ");
  $("verdict").textContent = verdict(found);
  $("checked").src = URL.createObjectURL(file);
  $("legend").replaceChildren(...marks.map(([name, mark]) => el("li", {}, el("i", { class: name }), `${NAMES[name]}: ${where(mark) || "spread thinly"}`)));
  const pairs = Object.entries(found.watermark.marks).map(([name, mark]) => [NAMES[name], `${mark.present ? "found" : "not found"} (${mark.score.toFixed(2)}; from 0.5 on it counts)`]);
  pairs.push(["Content credentials", `${STATES[found.c2pa.state]}${found.c2pa.when ? `, ${time(found.c2pa.when)} UTC` : ""}`]);
  if (found.c2pa.recalled) pairs.push(["Lost credentials", `${STATES[found.c2pa.recalled.state]} (kept by the service)`]);
  for (const row of found.rows) pairs.push(["Made", `${time(row.time)} UTC in the voice ${row.voice}, for ${row.purpose}, asked by ${row.user}`]);
  const ids = new Set([...found.watermark.ledger_ids, ...(found.c2pa.state === "trusted" ? [found.c2pa.ledger_id] : [])]);
  pairs.push(["Ledger", [...ids].join(", ")], ["Mark copied from", found.watermark.copied_from.join(", ")]);
  pairs.push(["Sounds like", found.watermark.sounds_like_ids.join(", ")], ["Length", `${found.seconds.toFixed(1)} s`]);
  pairs.push(["Like our model", `${found.sounds_like_ours.hint ? "perhaps" : "no"}: a hint, no mark and no proof`]);
  facts($("found-facts"), pairs);
  $("found").hidden = false;
  const audio = await decode(file).catch(() => null);
  $("found-wave").hidden = !audio;
  const bands = marks.map(([name, mark]) => ({ name, where: mark.where }));
  $("found-wave").setAttribute("aria-label", `Waveform. ${marks.map(([name, mark]) => `${NAMES[name]} at ${where(mark)}`).join("; ") || "No marks"}`);
  if (audio) waveform($("found-wave"), audio, bands);
  $("verdict").focus();
}

$("file").addEventListener("change", ({ target }) => look(target.files).then(() => (target.value = "")));
for (const name of ["dragover", "dragleave", "drop"])
  $("drop").addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", name === "dragover");
    if (name === "drop") look(event.dataTransfer.files);
  });
