// What requests would cost and how long they would take, before anyone clicks.
import { html, useEffect, useState } from "./ui.js";
import { ApiError, connection, post } from "./api.js";
import { useStore } from "./state.js";
import { said } from "./said.js";
import { t } from "./text.js";

const PLAN_MS = 300;

/** The service's answer to these bodies, asked while one types: `plans` in their order, or the first `error`. */
export function usePlans(bodies) {
  const [told, setTold] = useState({ plans: [], error: null });
  const { up } = useStore(connection);
  const text = JSON.stringify(bodies);
  useEffect(() => {
    if (!up) return undefined;
    const stop = new AbortController();
    const timer = setTimeout(async () => {
      try {
        const plans = await Promise.all(JSON.parse(text).map((body) => post("/v1/plan", body, { signal: stop.signal })));
        setTold({ plans, error: null });
      } catch (error) {
        if (error instanceof ApiError && error.status) setTold({ plans: [], error });
      }
    }, PLAN_MS);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [text, up]);
  return told;
}

export function usePlan(body) {
  const { plans, error } = usePlans([body]);
  return { plan: plans[0] ?? null, error };
}

export function seconds(value) {
  if (value < 1) return t("under a second");
  if (value < 90) return t("{n} s", { n: Math.round(value) });
  return t("{n} min", { n: Math.round(value / 60) });
}

/** The sum of `plans`, each drawn as often as `times` says. */
export function Cost({ plans, error, times = plans.map(() => 1) }) {
  if (error) return html`<p class="cost error" role="status">${said(error.message)}</p>`;
  if (!plans.length || plans.length !== times.length || plans.includes(null)) return html`<p class="cost hint" role="status">…</p>`;
  const sum = (value) => plans.reduce((total, plan, index) => total + value(plan) * times[index], 0);
  const known = plans.every((plan) => plan.seconds !== null);
  const time = known ? t("about {time}", { time: seconds(Math.max(1, sum((plan) => plan.seconds))) }) : t("time unknown until the first picture");
  const wait = plans[0].wait_seconds > 1 ? `, ${t("{time} in the queue", { time: seconds(plans[0].wait_seconds) })}` : "";
  const warnings = [...new Set(plans.flatMap((plan) => plan.warnings))];
  return html`<p class="cost" role="status"><b>${t("{n} credits", { n: Number(sum((plan) => plan.cost).toFixed(2)) })}</b> · ${time}${wait} · ${plans[0].width} × ${plans[0].height}</p>
    ${warnings.length > 0 && html`<ul class="warnings">${warnings.map((warning) => html`<li key=${warning}>${said(warning)}</li>`)}</ul>`}`;
}
