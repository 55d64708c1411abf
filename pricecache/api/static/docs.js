"use strict";
// Lists what /openapi.json describes, and tries GETs out. Everything from the document is put in as text, never as HTML.

const element = (name, attributes = {}, ...children) => {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
};

const resolved = (schema, all) => (schema && schema.$ref ? all[schema.$ref.split("/").pop()] : schema) || {};

const typeOf = (schema, all) => {
  if (!schema) return "any";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.enum) return schema.enum.join(" | ");
  if (schema.anyOf) return schema.anyOf.map((one) => typeOf(one, all)).join(" or ");
  if (schema.oneOf) return schema.oneOf.map((one) => typeOf(one, all)).join(" or ");
  if (schema.type === "array") return `list of ${typeOf(schema.items, all)}`;
  const name = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type;
  return schema.format ? `${name} (${schema.format})` : name || "any";
};

const table = (headings, rows) =>
  element(
    "table", {},
    element("thead", {}, element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map((cell) => element("td", {}, cell))))),
  );

const parameterTable = (parameters) =>
  table(
    ["parameter", "in", "type", "default", ""],
    parameters.map((p) => [
      element("code", {}, p.required ? `${p.name} *` : p.name),
      p.in,
      typeOf(p.schema, {}),
      p.schema.default === undefined ? "" : String(p.schema.default),
      p.description || "",
    ]),
  );

// A schema and, once each, the schemas it refers to.
const schemaBlocks = (schema, all, seen) => {
  const name = schema && schema.$ref ? schema.$ref.split("/").pop() : "";
  if (name && seen.has(name)) return [];
  if (name) seen.add(name);
  const whole = resolved(schema, all);
  const blocks = [];
  const required = new Set(whole.required || []);
  if (whole.properties) {
    if (name) blocks.push(element("h4", {}, name));
    blocks.push(
      table(
        ["field", "type", ""],
        Object.entries(whole.properties).map(([field, facts]) => [
          element("code", {}, required.has(field) ? `${field} *` : field),
          typeOf(facts, all),
          facts.description || "",
        ]),
      ),
    );
    for (const facts of Object.values(whole.properties)) blocks.push(...inner(facts, all, seen));
  } else {
    blocks.push(...inner(whole, all, seen));
  }
  return blocks;
};

const inner = (schema, all, seen) => {
  const found = [schema, schema.items, ...(schema.anyOf || []), ...(schema.oneOf || [])];
  if (schema.items) found.push(...(schema.items.anyOf || []), ...(schema.items.oneOf || []));
  return found.filter((one) => one && one.$ref).flatMap((one) => schemaBlocks(one, all, seen));
};

const tryForm = (path, parameters) => {
  const form = element("form", { class: "try" });
  for (const p of parameters) {
    const input = element("input", { name: p.name, placeholder: p.schema.default ?? p.schema.example ?? "" });
    if (p.required) input.required = true;
    form.append(element("label", {}, `${p.name} `, input));
  }
  const output = element("pre", { hidden: "", "aria-live": "polite" });
  form.append(element("button", { type: "submit" }, "Try"), output);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const given = new FormData(form);
    let target = path;
    const query = new URLSearchParams();
    for (const p of parameters) {
      const value = given.get(p.name);
      if (p.in === "path") target = target.replace(`{${p.name}}`, encodeURIComponent(value));
      else if (value) query.append(p.name, value);
    }
    if (query.size) target += `?${query}`;
    const key = new FormData(document.getElementById("access")).get("key");
    output.hidden = false;
    output.textContent = "…";
    try {
      const response = await fetch(target, { headers: key ? { "X-API-Key": key } : {}, cache: "no-store" });
      const text = await response.text();
      let shown = text;
      try {
        shown = JSON.stringify(JSON.parse(text), null, 2);
      } catch {
        // not JSON: shown as it came
      }
      const most = 20000;
      const rest = shown.length > most ? `\n… ${shown.length - most} more characters` : "";
      output.textContent = `GET ${target}\n${response.status} ${response.statusText}\n\n${shown.slice(0, most)}${rest}`;
    } catch (error) {
      output.textContent = String(error);
    }
  });
  return form;
};

const endpoint = (path, method, operation, all) => {
  const inside = element("div");
  if (operation.description) inside.append(element("p", { class: "note" }, operation.description));
  if (operation.parameters.length) inside.append(parameterTable(operation.parameters));
  const body = operation.requestBody && Object.values(operation.requestBody.content)[0].schema;
  if (body) {
    inside.append(element("h3", {}, operation.requestBody.required ? "Body" : "Body (optional)"));
    inside.append(...schemaBlocks(body, all, new Set()));
  }
  for (const [status, answer] of Object.entries(operation.responses)) {
    if (status === "default") continue;
    const [kind, content] = Object.entries(answer.content)[0];
    inside.append(element("h3", {}, `${status} `, element("span", { class: "note" }, kind)));
    inside.append(...schemaBlocks(content.schema, all, new Set()));
  }
  if (method === "get") inside.append(element("h3", {}, "Try it"), tryForm(path, operation.parameters));
  return element(
    "details", { class: "endpoint" },
    element(
      "summary", {},
      element("span", { class: "method" }, method.toUpperCase()),
      element("span", { class: "path" }, path),
      element("span", { class: "note" }, ` ${operation.summary}`),
    ),
    inside,
  );
};

const show = (api) => {
  document.getElementById("version").textContent = api.info.version;
  const about = document.getElementById("about");
  about.replaceChildren(`${api.info.description} `, element("a", { href: "/openapi.json" }, "/openapi.json"));
  const all = api.components.schemas;
  const target = document.getElementById("endpoints");
  for (const { name } of api.tags) {
    target.append(element("h2", {}, name));
    for (const [path, methods] of Object.entries(api.paths))
      for (const [method, operation] of Object.entries(methods))
        if (operation.tags.includes(name)) target.append(endpoint(path, method, operation, all));
  }
};

document.getElementById("access").addEventListener("submit", (event) => event.preventDefault());
fetch("/openapi.json")
  .then((response) => response.json())
  .then(show)
  .catch((error) => {
    document.getElementById("about").textContent = `Cannot read /openapi.json: ${error}`;
  });
