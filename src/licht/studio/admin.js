// For a key with the scope "admin": keys, usage, queue and workers, what was refused.
import { html, useEffect, useState, Button, Dialog, Empty, Field, Notice } from "./ui.js";
import { call, connection, get, post, session } from "./api.js";
import { settings, useStore } from "./state.js";
import { said } from "./said.js";
import { t } from "./text.js";
import { complain } from "./jobs.js";

const LOOK_MS = 5000;
const DAYS = 30;
const SCOPES = () => ({ generate: t("draw"), metrics: t("read metrics"), admin: t("administer") });
const day = (ago) => new Date(Date.now() - ago * 86_400_000).toISOString().slice(0, 10);
const when = (time) => new Date(time * 1000).toLocaleString();

/** Bars by day. The table beneath says the same to those who do not see them. */
function Plot({ title, days, unit }) {
  const most = Math.max(...days.map(([, value]) => value), 1e-9);
  const [width, height] = [days.length * 20, 140];
  const total = days.reduce((sum, [, value]) => sum + value, 0);
  return html`<figure class="plot card"><figcaption><h3>${title}</h3><span><b>${round(total)} ${unit}</b>${total > 0 && html` <span class="hint">${t("at most {n} a day", { n: round(most) })}</span>`}</span></figcaption>
    <svg viewBox=${`0 0 ${width} ${height}`} role="img" aria-label=${`${title}: ${round(total)} ${unit}`}>
      ${[0.5, 1].map((share) => html`<line key=${share} class="rule" x1="0" x2=${width} y1=${height * (1 - share) + 0.5} y2=${height * (1 - share) + 0.5} />`)}
      ${days.map(([name, value], index) => html`<g key=${name}><rect x=${index * 20 + 4} width="12" rx="3" y=${height - (value / most) * (height - 6)} height=${(value / most) * (height - 6)}><title>${name}: ${round(value)} ${unit}</title></rect></g>`)}
    </svg>
    <p class="axis hint">${days.filter((_, index) => index % 7 === 0).map(([name]) => html`<span key=${name}>${new Date(name).toLocaleDateString(settings.get().language, { day: "numeric", month: "short", timeZone: "UTC" })}</span>`)}</p></figure>`;
}

const round = (value) => (value >= 100 ? Math.round(value) : Number(value.toPrecision(3)));

function Usage({ rows }) {
  const names = Array.from({ length: DAYS }, (_, index) => day(DAYS - 1 - index));
  const sum = (field) => names.map((name) => [name, rows.filter((row) => row.day === name).reduce((total, row) => total + row[field], 0)]);
  return html`<section><h2>${t("Usage in {n} days", { n: DAYS })}</h2>
    <div class="plots"><${Plot} title=${t("Megapixels")} unit="MP" days=${sum("output_megapixels")} /><${Plot} title=${t("Credits")} unit=${t("credits")} days=${sum("credits")} /></div>
    ${rows.length > 0 && html`<details><summary>${t("As a table")}</summary><${Table} head=${[t("Day"), t("Key"), t("Model"), t("Pictures"), "MP", t("Credits"), t("Refused")]}
      rows=${rows.map((row) => [row.day, row.key_name, row.route, row.pictures, round(row.output_megapixels), row.credits, row.moderated])} /></details>`}
  </section>`;
}

function Table({ head, rows, label }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${label || head.join(", ")}><table><thead><tr>${head.map((each, index) => html`<th key=${index}>${each}</th>`)}</tr></thead>
    <tbody>${rows.map((row, index) => html`<tr key=${index}>${row.map((each, column) => html`<td key=${column}>${each}</td>`)}</tr>`)}</tbody></table></div>`;
}

function Queue({ queue }) {
  const { jobs } = queue;
  const tiles = [[t("waiting"), jobs.queued], [t("running"), jobs.running], [t("ready"), jobs.ready], [t("failed"), jobs.failed], [t("refused"), jobs.moderated], [t("given up"), queue.dead_letters]];
  return html`<section><h2>${t("Queue and workers")}</h2><dl class="figures">${tiles.map(([name, value]) => html`<div class="card" key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>
    <${Table} label=${t("Workers")} head=${[t("Worker"), t("Machine"), t("Weights"), t("Condition"), t("Since")]}
      rows=${queue.workers.map((worker) => [worker.id, worker.host, worker.model, html`<span class=${`dot ${worker.condition}`}></span> ${{ ready: t("ready to draw"), starting: t("starting"), silent: t("silent") }[worker.condition]}`, when(worker.started_at)])} /></section>`;
}

function NewKey({ onClose, onMade }) {
  const [name, setName] = useState("");
  const [limit, setLimit] = useState("");
  const [scopes, setScopes] = useState(["generate"]);
  const [text, setText] = useState(null);
  const [error, setError] = useState(null);
  const make = async () => {
    try {
      const made = await post("/v1/admin/keys", { name, scopes, ...(limit !== "" && { credits: Number(limit) }) });
      setText(made.text);
      onMade();
    } catch (caught) {
      setError(caught.message ? said(caught.message) : t("Licht does not answer."));
    }
  };
  const actions = text ? html`<${Button} kind="primary" onClick=${onClose}>${t("Done")}<//>` : html`<${Button} onClick=${onClose}>${t("Cancel")}<//><${Button} kind="primary" disabled=${!name.trim() || !scopes.length} onClick=${make}>${t("Make the key")}<//>`;
  return html`<${Dialog} title=${t("New key")} onClose=${onClose} actions=${actions}>
    ${text ? html`<p>${t("Copy it now: it is shown this once.")}</p><output class="secret">${text}</output>` : html`
      <${Field} label=${t("Name")} error=${error}>${(field) => html`<input ...${field} value=${name} onInput=${(event) => setName(event.target.value)} />`}<//>
      <${Field} label=${t("Credits")} hint=${t("empty: no limit")}>${(field) => html`<input type="number" min="0" ...${field} value=${limit} onInput=${(event) => setLimit(event.target.value)} />`}<//>
      <fieldset class="checks"><legend>${t("May")}</legend>${Object.entries(SCOPES()).map(([scope, name]) => html`<label key=${scope}><input type="checkbox" checked=${scopes.includes(scope)} onChange=${(event) => setScopes(event.target.checked ? [...scopes, scope] : scopes.filter((each) => each !== scope))} /> ${name}</label>`)}</fieldset>`}
  <//>`;
}

function Limits({ of, onClose, onChanged }) {
  const [more, setMore] = useState("");
  const [active, setActive] = useState(of.active_limit ?? "");
  const change = async () => {
    try {
      await call("PATCH", `/v1/admin/keys/${of.id}/limits`, { ...(more !== "" && { add_credits: Number(more) }), active_limit: active === "" ? null : Number(active) });
      onChanged();
      onClose();
    } catch (error) {
      complain(error);
    }
  };
  return html`<${Dialog} title=${t("Limits of {name}", { name: of.name })} onClose=${onClose} actions=${html`<${Button} onClick=${onClose}>${t("Cancel")}<//><${Button} kind="primary" onClick=${change}>${t("Change")}<//>`}>
    <${Field} label=${t("Add credits")} hint=${of.credits === null ? t("no limit so far; any number makes one") : t("now {n}", { n: of.credits })}>${(field) => html`<input type="number" ...${field} value=${more} onInput=${(event) => setMore(event.target.value)} />`}<//>
    <${Field} label=${t("Jobs at a time")} hint=${t("empty: as the settings say")}>${(field) => html`<input type="number" min="0" ...${field} value=${active} onInput=${(event) => setActive(event.target.value)} />`}<//>
  <//>`;
}

function Keys({ keys, again }) {
  const [making, setMaking] = useState(false);
  const [limiting, setLimiting] = useState(null);
  const [ending, setEnding] = useState(null);
  const { about } = useStore(session);
  const end = async () => {
    try {
      await post(`/v1/admin/keys/${ending.id}/revoke`);
      setEnding(null);
      again();
    } catch (error) {
      complain(error);
    }
  };
  const line = (key) => [
    html`<b>${key.name}</b>`, html`<code>${key.prefix}</code>`, key.scopes.map((scope) => SCOPES()[scope] ?? scope).join(", "), key.credits ?? "∞", `${key.active}${key.active_limit === null ? "" : ` / ${key.active_limit}`}`, when(key.created_at),
    key.revoked_at ? t("revoked") : html`<span class="row-actions"><${Button} onClick=${() => setLimiting(key)}>${t("Limits")}<//><${Button} kind="danger" onClick=${() => setEnding(key)}>${t("Revoke")}<//></span>`,
  ];
  return html`<section><header class="section-head"><h2>${t("Keys")}</h2><${Button} icon="plus" kind="secondary" onClick=${() => setMaking(true)}>${t("New key")}<//></header>
    <${Table} label=${t("Keys")} head=${[t("Name"), t("Prefix"), t("May"), t("Credits"), t("Active jobs"), t("Made"), ""]} rows=${keys.map(line)} />
    ${making && html`<${NewKey} onClose=${() => setMaking(false)} onMade=${again} />`}
    ${limiting && html`<${Limits} of=${limiting} onClose=${() => setLimiting(null)} onChanged=${again} />`}
    ${ending && html`<${Dialog} title=${t("Revoke {name}?", { name: ending.name })} onClose=${() => setEnding(null)} actions=${html`<${Button} onClick=${() => setEnding(null)}>${t("Cancel")}<//><${Button} kind="danger" onClick=${end}>${t("Revoke")}<//>`}>
      <p>${t("Whoever uses this key is shut out at once. This cannot be undone.")}</p>${ending.prefix === about?.key.prefix && html`<p class="error">${t("It is the key that you are using now.")}</p>`}<//>`}
  </section>`;
}

export function Admin() {
  const [told, setTold] = useState(null);
  const [error, setError] = useState(null);
  const { up } = useStore(connection);
  const [turn, setTurn] = useState(0);
  useEffect(() => {
    if (!up) return undefined;
    let over = false;
    let timer;
    const look = async () => {
      try {
        const [keys, usage, queue, moderation] = await Promise.all([get("/v1/admin/keys"), get(`/v1/admin/usage?since=${day(DAYS - 1)}`), get("/v1/admin/queue"), get("/v1/admin/moderation")]);
        if (over) return;
        setTold({ keys: keys.keys, usage: usage.usage, queue, refusals: moderation.refusals });
        timer = setTimeout(look, LOOK_MS);
      } catch (caught) {
        if (!over && caught.status) setError(caught.message);
      }
    };
    look();
    return () => { over = true; clearTimeout(timer); };
  }, [up, turn]);
  return html`<header class="view-head"><h1>${t("Admin")}</h1></header>
    ${error && html`<${Notice} kind="error">${error}<//>`}
    ${told && html`<${Queue} queue=${told.queue} /><${Usage} rows=${told.usage} /><${Keys} keys=${told.keys} again=${() => setTurn((now) => now + 1)} />
      <section><h2>${t("Refused by the policy")}</h2>${told.refusals.length ? html`<${Table} label=${t("Refused by the policy")} head=${[t("When"), t("Key"), t("Model"), t("Why")]} rows=${told.refusals.map((row) => [when(row.at), row.key_name, row.model, row.reason])} />` : html`<${Empty} title=${t("Nothing was refused.")} />`}</section>`}`;
}
