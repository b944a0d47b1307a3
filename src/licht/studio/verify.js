// Drop a file, and see what it says about where it comes from.
import { html, useState, Drop, Icon } from "./ui.js";
import { send } from "./api.js";
import { said } from "./said.js";
import { t } from "./text.js";

const TYPES = new Set(["image/png", "image/jpeg", "image/webp"]);

/** The verdict in words: [kind, sentence]. */
function verdict(told) {
  const { c2pa, watermark, known } = told;
  if (c2pa.state === "invalid") return ["bad", t("This file was changed after it was signed.")];
  if (told.agrees === false) return ["bad", t("The signature and the invisible mark contradict each other.")];
  if (c2pa.state === "trusted") return ["good", t("Signed by a trusted signer, and unchanged.")];
  if (c2pa.state === "valid") return ["good", t("Signed, and unchanged since. The signer is not on this service's list of trusted ones.")];
  if (watermark?.detected) return ["half", t("No signature, but Licht's invisible mark: it was drawn by Licht and changed or stripped since.")];
  return known ? ["half", t("No signature, but this service has drawn it.")] : ["none", t("Nothing in this file says where it comes from.")];
}

function Row({ good, title, children }) {
  return html`<div class=${`verify-row ${good === null ? "none" : good ? "good" : "bad"}`}><${Icon} name=${good ? "check" : good === null ? "more" : "close"} /><div><b>${title}</b><p>${children}</p></div></div>`;
}

function Report({ name, source, told }) {
  const [kind, words] = verdict(told);
  const { c2pa, watermark, known } = told;
  const signed = { none: null, valid: true, trusted: true, invalid: false }[c2pa.state];
  return html`<article class=${`report card ${kind}`}>
    <img src=${source} alt=${t("The file that was checked")} />
    <div>
      <h2>${words}</h2><p class="file">${name}</p>
      <${Row} good=${signed} title=${t("Content credentials")}>
        ${signed === null ? t("none") : `${c2pa.signer || t("unknown signer")}${c2pa.problems?.length ? `: ${c2pa.problems.join("; ")}` : ""}`}<//>
      <${Row} good=${watermark ? (watermark.detected ? true : null) : null} title=${t("Invisible mark")}>
        ${!watermark ? t("not looked for here") : watermark.detected ? t("found, payload {payload}", { payload: watermark.payload ?? "–" }) : t("none")}<//>
      <${Row} good=${known ? true : null} title=${t("Known here")}>
        ${known ? t("drawn by this key on {date}", { date: new Date(known.created_at * 1000).toLocaleString() }) : t("no picture of this key")}<//>
      <details><summary>${t("Everything that was found")}</summary><pre class="code">${JSON.stringify(told, null, 2)}</pre></details>
    </div>
  </article>`;
}

export function Verify() {
  const [reports, setReports] = useState([]);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  const check = async (files) => {
    setBusy(true);
    setError(null);
    for (const file of files) {
      try {
        const type = TYPES.has(file.type) ? file.type : "image/png";
        const answer = await send("POST", "/v1/verify", file, { type });
        const told = await answer.json();
        const source = URL.createObjectURL(file);
        setReports((now) => [{ name: file.name, source, told }, ...now]);
      } catch (caught) {
        setError(`${file.name}: ${caught.message ? said(caught.message) : t("Licht does not answer.")}`);
      }
    }
    setBusy(false);
  };
  return html`<header class="view-head"><h1>${t("Verify")}</h1></header>
    <p class="lead">${t("Drop a picture to see whether it was drawn by a machine, by whom, and whether it was changed since. Send the file itself: a screenshot has lost its credentials.")}</p>
    <${Drop} onFiles=${check} label=${t("Files to verify")} class="large"><${Icon} name="verify" /><span>${busy ? t("Looking …") : t("Drop files here, or choose them")}</span><//>
    ${error && html`<p class="error" role="alert">${error}</p>`}
    <div aria-live="polite">${reports.map((report) => html`<${Report} key=${report.source} ...${report} />`)}</div>`;
}
