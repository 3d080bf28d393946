// The API page, rendered from openapi.json: no third-party viewer, nothing loaded from elsewhere.
import { el } from "./dom.js";

const root = new URL("./", document.baseURI);

const lookUp = (contract, ref) => ref.slice(2).split("/").reduce((at, key) => at[key], contract);

/** A schema with its references resolved, except recursive ones, which would never end. */
function resolve(contract, node, within = []) {
  if (Array.isArray(node)) return node.map((item) => resolve(contract, item, within));
  if (node === null || typeof node !== "object") return node;
  const { $ref: ref, ...own } = node;
  const values = Object.fromEntries(Object.entries(own).map(([key, value]) => [key, resolve(contract, value, within)]));
  if (typeof ref !== "string") return values;
  if (within.includes(ref)) return node;
  return { ...resolve(contract, lookUp(contract, ref), [...within, ref]), ...values };
}

function curl(path, operation) {
  const url = new URL(path.slice(1).replace("{name}", "default"), root).href;
  const body = operation.requestBody?.content?.["multipart/form-data"]?.schema.properties ?? {};
  const parts = Object.entries(body).map(([name, schema]) =>
    schema.type === "array" ? `-F ${name}=@one.jpg -F ${name}=@two.jpg` : `-F ${name}=@photo.jpg`);
  const key = operation.security ? ["-H 'Authorization: Bearer YOUR-KEY'"] : [];
  return ["curl", ...key, ...parts, url].join(" ");
}

/** Text as paragraphs, in which `names` are code. */
const paragraphs = (text) => text.split("\n\n").map((part) =>
  el("p", {}, part.split("`").map((words, index) => (index % 2 ? el("code", {}, [words]) : words))));

/** The names in a pattern that matches a comma-separated list of them, such as that of attributes. */
const namesIn = (pattern) => pattern?.match(/^\^\[ ,\]\*\(([\w|]+)\)\( \*,\[ ,\]\*\(\1\)\)\*\[ ,\]\*\$$/)?.[1].split("|");

/** The allowed values of a parameter, and its default. */
function values(schema = {}) {
  const [kind] = [schema, ...(schema.anyOf ?? [])].map((one) => one.type).filter((type) => type && type !== "null");
  const names = kind === "boolean" ? [true, false] : namesIn(schema.pattern);
  const allowed = names?.join(", ") ?? (schema.pattern ? `matches ${schema.pattern}` : kind ?? "");
  const example = schema.examples ? `, like ${schema.examples.join(", ")}` : "";
  return `${allowed}${example}${schema.default === undefined ? "" : ` (default ${schema.default})`}`;
}

/** A wide table scrolls, so it must be reachable by keyboard. */
function table(name, head, rows) {
  return el("table", { tabindex: "0", "aria-label": name }, [
    el("thead", {}, [el("tr", {}, head.map((text) => el("th", { scope: "col" }, [text])))]),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, [cell]))))),
  ]);
}

function disclosure(title, value) {
  return el("details", {}, [
    el("summary", {}, [title]),
    el("pre", { tabindex: "0" }, [el("code", {}, [JSON.stringify(value, null, 2)])]),
  ]);
}

function operation(contract, path, method, node) {
  const parts = [
    el("h3", {}, [el("span", { class: "method" }, [method.toUpperCase()]), el("code", {}, [path]), node.summary ?? ""]),
    ...paragraphs(node.description ?? ""),
    el("pre", { tabindex: "0" }, [el("code", {}, [curl(path, node)])]),
  ];
  const parameters = node.parameters ?? [];
  if (parameters.length) {
    parts.push(table(`Parameters of ${method.toUpperCase()} ${path}`, ["parameter", "in", "meaning", "values"], parameters.map((item) => [
      el("code", {}, [item.name]), item.in, item.description ?? item.schema?.description ?? "", values(item.schema),
    ])));
  }
  const bodies = Object.keys(node.requestBody?.content ?? {});
  if (bodies.length) parts.push(el("p", {}, [`Body: ${bodies.join(", ")}`]));
  parts.push(table(`Answers of ${method.toUpperCase()} ${path}`, ["status", "answer"], Object.entries(node.responses).map(([status, answer]) => [
    status, `${answer.description} (${Object.keys(answer.content ?? {}).join(", ") || "no body"})`,
  ])));
  const good = node.responses["200"]?.content?.["application/json"];
  if (good?.example) parts.push(disclosure("Example of an answer (made-up numbers)", good.example));
  if (good?.schema) parts.push(disclosure("Schema of the answer", resolve(contract, good.schema)));
  return el("section", { class: "operation" }, parts);
}

async function main() {
  const target = document.querySelector("#operations");
  try {
    const answer = await fetch(new URL("openapi.json", root));
    if (!answer.ok) throw new Error(String(answer.status));
    const contract = await answer.json();
    document.querySelector("#description").textContent = contract.info.description.replaceAll("*", "");
    target.replaceChildren(...Object.entries(contract.paths).flatMap(([path, methods]) =>
      Object.entries(methods).map(([method, node]) => operation(contract, path, method, node))));
    const problems = contract["x-problems"] ?? {};
    document.querySelector("#problems").replaceChildren(table("Problems", ["code", "meaning"],
      Object.entries(problems).map(([code, title]) => [el("code", { id: code }, [code]), title])));
    if (location.hash) document.getElementById(location.hash.slice(1))?.scrollIntoView();
  } catch {
    target.replaceChildren(el("p", { role: "alert" }, ["The contract could not be read: check that the server is running, then reload."]));
  }
}
main();
