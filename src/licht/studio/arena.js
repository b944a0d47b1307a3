// The arena: one prompt, two pictures, and a vote before anyone knows which is which.
import { html, useEffect, useRef, useState, Button, Empty, Field } from "./ui.js";
import { ApiError, connection, get, post, session } from "./api.js";
import { duel, useStore } from "./state.js";
import { t } from "./text.js";
import { builtIn, complain, sizeOf, usualMegapixels } from "./jobs.js";
import { Picture } from "./pictures.js";
import { ModelSelect } from "./controls.js";
import { Cost, usePlans } from "./plan.js";
import { SAMPLES } from "./samples.js";

const LOOK_MS = 400;

function Contestant({ side, value }) {
  const set = (changes) => duel.change({ [side]: { ...value, ...changes } });
  const number = (text) => (text === "" ? null : Number(text));
  return html`<fieldset class="subcard"><legend>${side === "left" ? t("One") : t("The other")}</legend>
    <${ModelSelect} label=${t("Model")} value=${value.model} onChange=${(model) => set({ model })} />
    <div class="grid2">
      <${Field} label=${t("Steps")}>${(field) => html`<input type="number" min="1" max="50" ...${field} value=${value.steps ?? ""} placeholder=${t("automatic")} onInput=${(event) => set({ steps: number(event.target.value) })} />`}<//>
      <${Field} label=${t("Guidance")}>${(field) => html`<input type="number" min="1" max="100" step="0.5" ...${field} value=${value.guidance ?? ""} placeholder=${t("automatic")} onInput=${(event) => set({ guidance: number(event.target.value) })} />`}<//>
    </div></fieldset>`;
}

function Side({ name, side, winner }) {
  const won = winner === name;
  return html`<figure class=${`side ${winner ? (won ? "won" : winner === "tie" ? "tie" : "lost") : ""}`}>
    ${side.url ? html`<${Picture} url=${side.url} image=${side.job ? `job:${side.job}` : null} alt=${t("Picture {name}", { name: name.toUpperCase() })} />` : html`<div class="side-wait"><div class="bar"><i style=${{ width: `${Math.round(side.progress * 100)}%` }}></i></div>
      ${["failed", "moderated", "cancelled", "deleted"].includes(side.state) && html`<p>${t("It could not be drawn.")}</p>`}</div>`}
    <figcaption><b>${name.toUpperCase()}</b> ${side.name && html`<span>${side.name}</span>`}</figcaption>
  </figure>`;
}

function Battle({ battle, onVote, onNext }) {
  const ready = battle.a.state === "ready" && battle.b.state === "ready";
  useEffect(() => {
    if (!ready || battle.winner) return undefined;
    const keys = (event) => {
      const vote = { 1: "a", 2: "tie", 3: "b" }[event.key];
      if (vote && !/INPUT|TEXTAREA|SELECT/.test(event.target.tagName)) onVote(vote);
    };
    document.addEventListener("keydown", keys);
    return () => document.removeEventListener("keydown", keys);
  }, [ready, battle.winner]);
  return html`<div class="battle">
    <p class="prompt-text">${battle.prompt}</p>
    <div class="sides"><${Side} name="a" side=${battle.a} winner=${battle.winner} /><${Side} name="b" side=${battle.b} winner=${battle.winner} /></div>
    <div class="vote" role="group" aria-label=${t("Your vote")}>
      ${battle.winner
        ? html`<${Button} kind="primary" onClick=${onNext}>${t("The next one")}<//>`
        : html`<${Button} kind="secondary" disabled=${!ready} onClick=${() => onVote("a")}>${t("A is better")}<//>
          <${Button} disabled=${!ready} onClick=${() => onVote("tie")}>${t("Equal")}<//>
          <${Button} kind="secondary" disabled=${!ready} onClick=${() => onVote("b")}>${t("B is better")}<//>`}
    </div>
    ${!battle.winner && html`<p class="hint">${t("Or press 1, 2, 3. Who drew which is told after the vote.")}</p><${Button} onClick=${onNext}>${t("Leave without a vote")}<//>`}
  </div>`;
}

const percent = (share) => `${Math.round(share * 100)} %`;
/** The same for a style, which knows no space there. */
const along = (share) => `${share * 100}%`;

function Standings({ table }) {
  if (!table) return null;
  if (!table.votes) return html`<${Empty} title=${t("No votes yet.")} />`;
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${t("Standings")}><table>
    <thead><tr><th>${t("Contestant")}</th><th>Elo</th><th>${t("95 % interval")}</th><th>${t("Wins")}</th><th>${t("Ties")}</th><th>${t("Losses")}</th><th class="wide">${t("Win rate, with 95 % interval")}</th></tr></thead>
    <tbody>${table.standings.map((row) => html`<tr key=${row.name}>
      <th scope="row">${row.name}</th><td><b>${Math.round(row.rating)}</b></td><td>${Math.round(row.rating_interval.low)}–${Math.round(row.rating_interval.high)}</td><td>${row.wins}</td><td>${row.ties}</td><td>${row.losses}</td>
      <td class="wide"><span class="rate"><i class="band" style=${{ left: along(row.win_rate_interval.low), width: along(row.win_rate_interval.high - row.win_rate_interval.low) }}></i><i class="dot" style=${{ left: along(row.win_rate) }}></i></span>
        ${percent(row.win_rate)} <span class="hint">(${percent(row.win_rate_interval.low)} – ${percent(row.win_rate_interval.high)})</span></td></tr>`)}</tbody></table></div>`;
}

/** The battle that is going on: its pictures are paid for, so that it outlives a look at another view, and a reload. */
function useBattle(up) {
  const [battle, show] = useState(null);
  const set = (next) => {
    duel.change({ battle: next?.id ?? null });
    show(next);
  };
  useEffect(() => {
    const { battle: id } = duel.get();
    if (!up || !id || battle) return;
    get(`/v1/arena/battles/${id}`).then(set, (error) => (error instanceof ApiError && error.status === 404 ? set(null) : complain(error)));
  }, [up]);
  return [battle, set];
}

const given = ({ model, steps, guidance }) => ({ model, ...(steps && { steps }), ...(guidance && { guidance }) });

/** Who meets whom about what, and what it costs. */
function Duel({ busy, onBegin }) {
  const now = useStore(duel);
  const { about } = useStore(session);
  const request = { prompt: now.prompt, output_format: "png", ...sizeOf("1:1", usualMegapixels(about)) };
  const sides = [given(now.left), given(now.right)];
  const { plans, error } = usePlans(sides.map((side) => ({ ...request, ...side })));
  const same = JSON.stringify(sides[0]) === JSON.stringify(sides[1]);
  const sample = () => duel.change({ prompt: SAMPLES[Math.floor(Math.random() * SAMPLES.length)][0] });
  return html`<section class="card duel" aria-label=${t("New battle")}>
    <${Field} label=${t("Prompt")}>${(field) => html`<textarea rows="2" ...${field} value=${now.prompt} placeholder=${t("a small matte blue cube on a gray floor")} onInput=${(event) => duel.change({ prompt: event.target.value })}></textarea>`}<//>
    ${builtIn(about) && !now.prompt.trim() && html`<div><${Button} icon="wand" onClick=${sample}>${t("Show me an example")}<//></div>`}
    <div class="duel-sides"><${Contestant} side="left" value=${now.left} /><${Contestant} side="right" value=${now.right} /></div>
    ${same && html`<p class="error">${t("Both are the same; let them differ in something.")}</p>`}
    <${Cost} plans=${plans} error=${error} />
    <${Button} kind="primary" disabled=${busy || same || !now.prompt.trim()} onClick=${() => onBegin(request, sides)}>${t("Draw both")}<//>
  </section>`;
}

export function Arena() {
  const { up } = useStore(connection);
  const [battle, setBattle] = useBattle(up);
  const [table, setTable] = useState(null);
  const [busy, setBusy] = useState(false);
  const look = () => get("/v1/arena").then(setTable).catch(complain);
  useEffect(() => { if (up) look(); }, [up]);
  useEffect(() => {
    if (!battle || !up || [battle.a, battle.b].every((side) => !["queued", "running"].includes(side.state))) return undefined;
    const timer = setTimeout(() => get(`/v1/arena/battles/${battle.id}`).then(setBattle).catch(complain), LOOK_MS);
    return () => clearTimeout(timer);
  }, [battle, up]);
  const sending = useRef(false);
  const attempt = (work) => async (...values) => {
    if (sending.current) return;
    sending.current = true;
    setBusy(true);
    try {
      await work(...values);
    } catch (error) {
      complain(error);
    } finally {
      sending.current = false;
      setBusy(false);
    }
  };
  const begin = attempt(async (request, contestants) => setBattle(await post("/v1/arena/battles", { request, contestants })));
  const vote = attempt(async (winner) => {
    setBattle(await post(`/v1/arena/battles/${battle.id}/vote`, { winner }));
    await look();
  });
  return html`<header class="view-head"><h1>${t("Arena")}</h1></header>
    <p class="lead">${t("One prompt, one seed, two models or settings. Vote for the better picture without knowing whose it is.")}</p>
    ${battle ? html`<${Battle} battle=${battle} onVote=${vote} onNext=${() => setBattle(null)} />` : html`<${Duel} busy=${busy} onBegin=${begin} />`}
    <section class="standings"><h2>${t("Standings")}${table && table.votes > 0 && html` <span class="hint">${t("Votes: {n}", { n: table.votes })}</span>`}</h2><${Standings} table=${table} /></section>`;
}
