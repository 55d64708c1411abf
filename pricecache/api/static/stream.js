// Portfolio values and events as they happen: by WebSocket, else Server-Sent Events, else polling. Depends on nothing.

const CONNECT_MS = 2000; // for WebSocket and SSE each, so that polling begins within 5 s
const QUIET_MS = 15000; // after so long without a word a ping is sent; pings of the protocol are hidden from pages
const PONG_MS = 10000;
const STALE_MS = 30000;
const POLL_MS = 5000;
const FIRST_RETRY_MS = 500; // then twice as long each time, up to RETRY_MS
const RETRY_MS = 30000; // and between attempts at the stream while polling
const CHANNELS = ["positions", "account", "trades", "orders"];
const CLOSED_ORDERS = new Set(["filled", "cancelled", "rejected", "expired"]);

/**
 * What is known of a portfolio by now.
 * @typedef {object} PortfolioState
 * @property {string} id
 * @property {number|null} seq of the last trade, order or closure that was taken; null: none is known yet
 * @property {string|null} epoch of the numbering
 * @property {object|null} account the latest account:updated
 * @property {Map<string, object>} positions by symbol and market, "AAPL:US"
 * @property {Map<string, object>} orders open ones, by orderId
 */

/**
 * @typedef {object} Options
 * @property {string|URL} [url] where the daemon is, its path ending in a slash; else where this module came from
 * @property {string[]} [portfolioIds] else all of the user's
 * @property {string[]} [channels] of positions, account, trades, orders, prices; else all but prices
 * @property {string[]} [symbols] of channel prices, such as "SAP:DE"; else what the portfolios hold
 * @property {object|(() => object|Promise<object>)} [headers] of every request, such as Authorization; else the cookie
 * @property {() => Promise<string>} [ticket] where tickets come from; else POST /api/stream/ticket with `headers`
 * @property {Storage} [storage] such as sessionStorage: what was seen is kept there, so that a reload resumes
 * @property {(event: CustomEvent) => void} [onState] and so on: one listener for each event
 */

/** An answer that is no success: `status` is that of HTTP, `code` the daemon's. */
const refusal = (status, code = null, detail = "") => Object.assign(new Error(detail), { status, code });

// up to half as long, so that those who lost a daemon together do not come back together
const spread = (ms) => Math.min(ms, RETRY_MS) * (0.5 + Math.random() / 2);

const aborted = (signal) =>
  new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    signal.addEventListener("abort", () => reject(signal.reason));
  });

/**
 * Follows portfolios until `stop`. Its events are CustomEvents, with all they tell in `detail`:
 * "state" {state, transport}, "snapshot" {portfolioId, resync, at}, "event" {portfolioId, seq, type, ...},
 * "values" {portfolioId, at, events}, "prices" {portfolioId, at, events}, "stale" {ageSeconds, isStale} when that
 * changes, "deleted" {portfolioId}, "problem" {status, code, detail, portfolioId}. Each trade, order and closure comes once; values come by latest state.
 */
export class PriceStream extends EventTarget {
  #options;
  #url;
  #portfolios = new Map();
  #state = { state: "stopped", transport: null };
  #stopping = null; // AbortController of what `start` began
  #link = null; // what brings messages now: {send, check, hear, end}, `send` only by WebSocket
  #wakes = new Set(); // what ends each pause
  #resuming = new Set(); // portfolios of which a gap was seen and no snapshot since
  #denied = false; // a 401 came since anything last worked
  #heardAt = 0; // ms since 1970: wall time, since other clocks stand still while a machine sleeps
  #isStale = false;
  #staleTimer;

  /** @param {Options} options */
  constructor(options = {}) {
    super();
    this.#options = { channels: CHANNELS, ...options };
    this.#url = new URL(options.url ?? "../", options.url ? location.href : import.meta.url);
    for (const type of ["state", "snapshot", "event", "values", "prices", "stale", "deleted", "problem"]) {
      const listener = options[`on${type[0].toUpperCase()}${type.slice(1)}`];
      if (listener) this.addEventListener(type, listener);
    }
    const known = JSON.parse(options.storage?.getItem(this.#key) ?? "{}");
    for (const id of options.portfolioIds ?? Object.keys(known)) Object.assign(this.#portfolio(id), known[id]);
  }

  /** "stopped", "connecting", "live", "polling", "offline" (trying again by itself) or "unauthorized" (start again). */
  get state() {
    return this.#state.state;
  }

  /** "websocket", "sse", "polling" or null. */
  get transport() {
    return this.#state.transport;
  }

  /** @returns {PortfolioState|undefined} */
  portfolio(id) {
    return this.#portfolios.get(id);
  }

  /** Whether anything, be it only a heartbeat, came in the last 30 s. */
  staleness() {
    const age = Date.now() - this.#heardAt;
    return { ageSeconds: age / 1000, isStale: age >= STALE_MS };
  }

  start() {
    if (this.#stopping) return;
    const stopping = (this.#stopping = new AbortController());
    const { signal } = stopping;
    addEventListener("online", this.#check, { signal });
    document.addEventListener("visibilitychange", this.#check, { signal });
    this.#denied = false;
    this.#heard();
    this.#run(signal).finally(() => this.#stopping === stopping && this.stop());
  }

  stop() {
    this.#stopping?.abort();
    this.#stopping = null;
    clearTimeout(this.#staleTimer);
    if (this.state !== "unauthorized") this.#say("stopped");
  }

  /** Follows other portfolios, channels or symbols from now on; what is left out stays as it is. */
  subscribe({ portfolioIds, channels, symbols }) {
    for (const [name, value] of Object.entries({ portfolioIds, channels, symbols }))
      if (value) this.#options[name] = value;
    for (const id of portfolioIds ?? []) this.#portfolio(id);
    for (const id of this.#portfolios.keys())
      if (portfolioIds && !portfolioIds.includes(id)) this.#portfolios.delete(id);
    this.#link?.end(); // a new one says it all
    this.#wake();
  }

  async #run(signal) {
    for (let failures = 0; !signal.aborted; ) {
      const began = Date.now();
      try {
        if (this.state !== "polling" && this.state !== "offline") this.#say("connecting");
        let found = null;
        for (const way of ["websocket", "sse", "polling"]) if (!found && (await this.#follow(way, signal))) found = way;
        if (!found) this.#say("offline");
        if (found === "polling" || (found && Date.now() - began > STALE_MS)) failures = 0;
        if (found !== "polling") await this.#pause(spread(FIRST_RETRY_MS * 2 ** failures++), signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error.status !== 401) throw error;
        this.#say("unauthorized");
        if (this.#denied) return;
        this.#denied = true; // once more, with a new ticket
      }
    }
  }

  /** Connects and takes what comes until that ends; whether anything came. Throws when access is denied. */
  async #follow(transport, signal) {
    const over = new AbortController();
    const either = AbortSignal.any([signal, over.signal]);
    const link = { send: null, end: () => over.abort() };
    const isPolling = transport === "polling";
    let timer;
    const wait = (ms, then) => {
      clearTimeout(timer);
      timer = setTimeout(then, ms);
    };
    const ask = (ms) => {
      link.send({ type: "ping" });
      wait(ms, link.end);
    };
    link.check = () => (link.send ? ask(CONNECT_MS) : isPolling && link.end());
    link.hear = (message) => {
      if (either.aborted) return;
      if (link.send) wait(QUIET_MS, () => ask(PONG_MS));
      else wait(isPolling ? 2 * POLL_MS : QUIET_MS + PONG_MS, link.end);
      this.#heard();
      this.#link = link;
      this.#denied = false;
      this.#say(isPolling ? "polling" : "live", transport);
      if (message) this.#take(message);
    };
    wait(isPolling ? POLL_MS : CONNECT_MS, link.end);
    try {
      const connect = { websocket: this.#overSocket, sse: this.#overEvents, polling: this.#overPolls }[transport];
      await Promise.race([connect.call(this, link, either), aborted(either)]);
    } catch (error) {
      if (signal.aborted || error.status === 401) throw error;
      if (error.status) this.#emit("problem", { status: error.status, code: error.code, detail: error.message });
    } finally {
      clearTimeout(timer);
      over.abort();
    }
    if (this.#link !== link) return false;
    this.#link = null;
    if (!isPolling) this.#say("connecting");
    return true;
  }

  async #overSocket(link, signal) {
    const url = await this.#streamUrl("ws/portfolio", signal);
    url.protocol = url.protocol.replace("http", "ws");
    signal.throwIfAborted();
    const socket = new WebSocket(url);
    signal.addEventListener("abort", () => socket.close());
    const code = await new Promise((resolve) => {
      socket.onopen = () => {
        link.send = (message) => socket.send(JSON.stringify(message));
        link.send({ type: "ping" }); // its answer shows that the way is open, however long a snapshot takes
        // the daemon takes 10 messages a second, and 20 at once
        this.#subscriptions().forEach((one, at) => setTimeout(() => link.send(one), Math.max(0, at - 15) * 150));
      };
      socket.onmessage = ({ data }) => link.hear(JSON.parse(data));
      socket.onclose = (event) => resolve(event.code);
    });
    if (code === 4401) throw refusal(401);
  }

  // fetch and not EventSource, which hides statuses and heartbeats, takes no headers, and asks again by itself
  async #overEvents(link, signal) {
    const url = await this.#streamUrl("api/stream", signal, !this.#options.headers);
    for (const [name, value] of this.#subscriptionQuery()) url.searchParams.append(name, value);
    const { body } = await this.#fetch(url, { signal });
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ; ) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (text + value).split("\n\n");
      text = parts.pop();
      link.hear(null);
      for (const part of parts) {
        const lines = part.split("\n").filter((line) => line.startsWith("data:"));
        const message = lines.length ? JSON.parse(lines.map((line) => line.slice(5)).join("\n")) : null;
        if (message?.type === "closing" && message.code === 4401) throw refusal(401);
        link.hear(message);
      }
    }
  }

  // for a while: then the stream is tried again
  async #overPolls(link, signal) {
    const until = Date.now() + spread(RETRY_MS);
    const ids = (this.#options.portfolioIds ?? []).map((id) => ["portfolioId", id]);
    while (Date.now() < until) {
      const answer = await this.#fetch(`api/portfolio/summary?${new URLSearchParams(ids)}`, { signal });
      const summary = await answer.json();
      for (const one of summary.portfolios ?? [summary]) await this.#takePolled(one, signal);
      link.hear(null);
      await this.#pause(POLL_MS, signal);
    }
  }

  // in the shape of a message of the stream, so that there is one way on for both
  async #takePolled({ positions, ...account }, signal) {
    const known = this.#portfolio(account.portfolioId);
    const values = [{ type: "account:updated", ...account }];
    values.push(...positions.map((position) => ({ type: "position:updated", ...position })));
    const path = `api/portfolios/${encodeURIComponent(known.id)}`;
    for (let complete = false; !complete; ) {
      const since = known.epoch === null ? "" : `?${new URLSearchParams({ since: known.seq, epoch: known.epoch })}`;
      const page = await (await this.#fetch(`${path}/events${since}`, { signal })).json();
      const isNew = known.account === null || known.epoch === null || page.resync;
      complete = isNew || page.complete;
      if (isNew) {
        const { orders } = await (await this.#fetch(`${path}/orders?status=open`, { signal })).json();
        values.push(...orders.map((one) => ({ ...one, orderType: one.type, type: "order:updated" })));
      }
      const events = complete ? [...page.events, ...values] : page.events;
      this.#take({ ...page, type: isNew ? "snapshot" : "update", at: account.asOf, events });
    }
  }

  #take({ type, portfolioId, at, events, ...message }) {
    if (type === "prices") this.#emit("prices", { portfolioId, at, events });
    if (type === "unsubscribed" && message.reason === "portfolio_deleted") this.#forget(portfolioId);
    if (type === "error" && message.code === "unknown_portfolio" && this.#isRemembered(portfolioId))
      return this.#forget(portfolioId);
    if (type === "error") {
      const { code, detail } = message;
      this.#emit("problem", { status: null, code, detail, portfolioId });
    }
    if (type !== "snapshot" && type !== "update") return;
    const known = this.#portfolio(portfolioId);
    const isWhole = type === "snapshot";
    if (!isWhole && known.epoch !== null && message.epoch !== known.epoch) return this.#resume(known);
    for (const event of events.filter((one) => one.seq != null)) {
      if (known.seq !== null && event.seq <= known.seq) continue; // had already
      if (known.seq !== null && event.seq > known.seq + 1 && !isWhole && this.#seesAll()) return this.#resume(known);
      known.seq = event.seq;
      this.#apply(known, event);
      this.#emit("event", { portfolioId, ...event });
    }
    const values = events.filter((one) => one.seq == null);
    if (isWhole) {
      const goesOn = known.epoch === message.epoch && !message.resync;
      const seq = goesOn ? Math.max(known.seq, message.seq) : message.seq;
      Object.assign(known, { seq, epoch: message.epoch, account: null });
      known.positions.clear();
      known.orders.clear();
      this.#resuming.delete(known.id);
    }
    for (const event of values) this.#apply(known, event);
    this.#save();
    if (isWhole) this.#emit("snapshot", { portfolioId, at, resync: message.resync ?? false });
    else if (values.length) this.#emit("values", { portfolioId, at, events: values });
  }

  #apply(known, event) {
    const position = `${event.symbol}:${event.market}`;
    if (event.type === "account:updated") known.account = event;
    else if (event.type === "position:updated") known.positions.set(position, event);
    else if (event.type === "position:closed") known.positions.delete(position);
    else if (event.type.startsWith("order:")) {
      if (CLOSED_ORDERS.has(event.status)) known.orders.delete(event.orderId);
      else known.orders.set(event.orderId, event);
    }
  }

  /** Known from before, and not because the page named it. */
  #isRemembered(id) {
    return !this.#options.portfolioIds && this.#portfolios.has(id);
  }

  /** It was deleted. */
  #forget(id) {
    const { portfolioIds } = this.#options;
    if (portfolioIds?.length > 1) this.#options.portfolioIds = portfolioIds.filter((one) => one !== id);
    this.#resuming.delete(id);
    if (!this.#portfolios.delete(id)) return;
    this.#save();
    this.#emit("deleted", { portfolioId: id });
  }

  /** Something is missing: ask for everything after what was seen. */
  #resume(known) {
    if (this.#resuming.has(known.id)) return;
    this.#resuming.add(known.id);
    if (this.#link?.send) this.#link.send(this.#subscription(known));
    else this.#link?.end();
  }

  // who sees only some channels cannot tell a gap from what was not for it
  #seesAll() {
    return CHANNELS.every((name) => name === "account" || this.#options.channels.includes(name));
  }

  #subscriptions() {
    const known = [...this.#portfolios.values()].map((one) => this.#subscription(one));
    return this.#options.portfolioIds ? known : [...known, this.#subscription()];
  }

  #subscription(known) {
    const { channels, symbols } = this.#options;
    const message = { type: "subscribe", channels, symbols, portfolioId: known?.id };
    return known?.epoch == null ? message : { ...message, since: known.seq, epoch: known.epoch };
  }

  #subscriptionQuery() {
    const { portfolioIds, channels, symbols } = this.#options;
    const known = [...this.#portfolios.values()].filter(({ epoch }) => epoch !== null);
    const [epoch, ...others] = new Set(known.map((one) => one.epoch));
    return [
      ["channels", channels.join(",")],
      ...(symbols ? [["symbols", symbols.join(",")]] : []),
      ...(portfolioIds ?? []).map((id) => ["portfolioId", id]),
      ...known.map(({ id, seq }) => ["since", `${id}:${seq}`]),
      ...(epoch ? [["epoch", others.length ? "several" : epoch]] : []), // of one database all have the same
    ];
  }

  async #streamUrl(path, signal, withTicket = true) {
    const url = new URL(path, this.#url);
    const { ticket, headers } = this.#options;
    if (!withTicket || !(ticket || headers)) return url;
    const get = async () => (await (await this.#fetch("api/stream/ticket", { method: "POST", signal })).json()).ticket;
    url.searchParams.set("ticket", await (ticket ?? get)());
    return url;
  }

  async #fetch(path, options) {
    const { headers } = this.#options;
    const given = typeof headers === "function" ? await headers() : headers;
    const all = { ...options, headers: given, credentials: "include", cache: "no-store" };
    const response = await fetch(new URL(path, this.#url), all);
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    throw refusal(response.status, problem.code, problem.detail);
  }

  #portfolio(id) {
    if (!this.#portfolios.has(id)) {
      const empty = { id, seq: null, epoch: null, account: null, positions: new Map(), orders: new Map() };
      this.#portfolios.set(id, empty);
    }
    return this.#portfolios.get(id);
  }

  get #key() {
    return `pricecache.stream ${this.#url}`;
  }

  #save() {
    const seen = [...this.#portfolios.values()].map(({ id, seq, epoch }) => [id, { seq, epoch }]);
    try {
      this.#options.storage?.setItem(this.#key, JSON.stringify(Object.fromEntries(seen)));
    } catch {
      // full, or forbidden: a reload begins anew
    }
  }

  #heard() {
    this.#heardAt = Date.now();
    this.#judge();
    clearTimeout(this.#staleTimer);
    this.#staleTimer = setTimeout(() => this.#judge(), STALE_MS);
  }

  #judge() {
    const found = this.staleness();
    if (found.isStale === this.#isStale) return;
    this.#isStale = found.isStale;
    this.#emit("stale", found);
  }

  /** After sleep, or when a network is back: nobody waits. */
  #check = () => {
    if (document.visibilityState === "hidden") return;
    this.#link?.check();
    this.#wake();
  };

  #wake() {
    for (const wake of this.#wakes) wake();
  }

  // ends early when nudged; throws when `signal` aborts
  async #pause(ms, signal) {
    const pause = new AbortController();
    const wake = () => pause.abort();
    const timer = setTimeout(wake, ms);
    this.#wakes.add(wake);
    await aborted(AbortSignal.any([pause.signal, signal])).catch(() => {});
    clearTimeout(timer);
    this.#wakes.delete(wake);
    signal.throwIfAborted();
  }

  #say(state, transport = null) {
    if (this.#state.state === state && this.#state.transport === transport) return;
    this.#state = { state, transport };
    this.#emit("state", this.#state);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
