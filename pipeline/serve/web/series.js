// What changed in a stream, and what its tiers held, over stream time. Bounded: what is older stands further apart.

const MOST_SAMPLES = 1200;

/** Samples in order of time. A clock that goes back begins them anew. */
export class Series {
  samples = []; // {at_s, value}

  add(at_s, value) {
    if (!Number.isFinite(at_s) || !Number.isFinite(value)) return;
    const last = this.samples.at(-1);
    if (last && at_s < last.at_s) this.samples = [];
    if (last && at_s === last.at_s) last.value = value;
    else this.samples.push({ at_s, value });
    if (this.samples.length > MOST_SAMPLES) {
      const half = MOST_SAMPLES / 2;
      this.samples = this.samples.filter((_, number) => number >= half || number % 2 === 0);
    }
  }

  /** The largest since a time; 0 where there is none. */
  peak(from_s) {
    return this.samples.reduce((most, { at_s, value }) => (at_s >= from_s && value > most ? value : most), 0);
  }

  get last() {
    return this.samples.at(-1) ?? null;
  }
}

/** The series of one stream. */
export class StreamSeries {
  change = new Series();
  tiers = new Map(); // name -> {series, budget}

  addState(state) {
    const at_s = state.seen_until_s;
    this.change.add(at_s, state.change_share);
    for (const [name, held] of Object.entries(state.bytes_by_tier ?? {})) {
      if (!this.tiers.has(name)) this.tiers.set(name, { series: new Series(), budget: null });
      const tier = this.tiers.get(name);
      tier.series.add(at_s, held);
      const budget = state.budget_by_tier?.[name];
      tier.budget = Number.isFinite(budget) && budget > 0 ? budget : null;
    }
  }

  get newest_s() {
    return this.change.last?.at_s ?? null;
  }

  get oldest_s() {
    return this.change.samples[0]?.at_s ?? null;
  }
}
