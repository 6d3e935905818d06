import { $, ask, complain, el, save, time, told } from "./api.js";

let head;

export async function show() {
  complain($("ledger-error"), null);
  $("ledger-good").textContent = "";
  head = await told("/v1/ledger/head");
  $("head-said").textContent = `${head.rows} rows, the last of ${time(head.time)} UTC.`;
  const rows = await told("/v1/ledger").then((found) => found.data, () => []); // a speaker sees the head alone
  $("verify").hidden = !rows.length;
  const line = (row) => [row.seq, time(row.time), row.event, `${row.hash.slice(0, 16)}…`].map((value) => el("td", {}, String(value)));
  $("rows").tBodies[0].replaceChildren(...rows.reverse().map((row) => el("tr", {}, ...line(row))));
}

const tried = (work) => async (event) => {
  event.preventDefault();
  complain($("ledger-error"), null);
  $("ledger-good").textContent = "";
  try {
    await work(event);
  } catch (error) {
    complain($("ledger-error"), error);
  }
};

$("head-save").addEventListener("click", tried(async () => save(`head-${head.rows}.jws`, head.head)));
$("keys-save").addEventListener("click", tried(async () => save("keys.pem", await (await ask("/v1/keys")).text())));
$("root-save").addEventListener("click", tried(async () => save("root.pem", await (await ask("/v1/root")).text())));
$("verify").addEventListener("click", tried(async () => {
  const found = await told("/v1/ledger/verify");
  $("ledger-good").textContent = `Good: ${found.rows} rows, nothing was changed, removed or put in between.`;
}));
$("export-form").addEventListener("submit", tried(async () => {
  const form = new FormData();
  for (const [name, id] of [["file", "export"], ["key", "export-key"], ["head", "export-head"]])
    if ($(id).files[0]) form.append(name, $(id).files[0], name);
  const found = await told("/v1/ledger/check", { method: "POST", form });
  const by = found.signers.length ? `signed by ${found.signers.join(", ")}` : "but anybody may have made it: give the public keys";
  $("ledger-good").textContent = `Whole: ${found.rows} rows, ${by}.`;
}));
