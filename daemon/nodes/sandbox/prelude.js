// What each instance runs before the code of users: `console`, `print` and `input`, and how a result leaves.
// Everything that is used later is taken hold of here, so that code which replaces built-ins changes its own world only.
(() => {
  const host = globalThis.print;
  delete globalThis.print;
  const { parse, stringify } = JSON;
  const text = String;
  const wellFormed = Function.prototype.call.bind(String.prototype.toWellFormed);
  const join = Function.prototype.call.bind(Array.prototype.join);
  const define = Object.defineProperty;
  const AnError = Error;

  const shown = (value) => {
    if (typeof value === "string") return value;
    if (typeof value !== "object" || value === null) return text(value);
    if (value instanceof AnError) return `${value.name}: ${value.message}`;
    try {
      return stringify(value) ?? text(value);
    } catch {
      return "[object]";
    }
  };
  const line = (values) => {
    const parts = [];
    for (let index = 0; index < values.length; index++) parts[index] = shown(values[index]);
    return `${join(parts, " ")}\n`;
  };
  const write = (...values) => {
    host(wellFormed(line(values)));
  };
  const own = (name, value) =>
    define(globalThis, name, { value, writable: true, configurable: true, enumerable: false });
  own("console", { debug: write, error: write, info: write, log: write, warn: write });
  own("print", write);

  const part = (value, name) => {
    try {
      const found = value[name];
      return typeof found === "string" ? wellFormed(found) : "";
    } catch {
      return "";
    }
  };
  const thrown = (value) => {
    if (value instanceof AnError) {
      const name = part(value, "name") || "Error";
      const message = part(value, "message");
      if (name === "InternalError" && message === "out of memory") return ["memory", "", "", ""];
      return ["thrown", name, message, part(value, "stack")];
    }
    try {
      return ["thrown", "Error", wellFormed(shown(value)), ""];
    } catch {
      return ["thrown", "Error", "", ""];
    }
  };

  // One string, since each thing that the host reads costs it ten calls: the kind in a letter, and what belongs to it.
  const failed = (told) => `f${told[0]}\0${told[1]}\0${told[2]}\0${told[3]}`;
  return {
    take: (json) => own("input", parse(json)),
    give: async (value) => {
      let result;
      try {
        result = await value;
      } catch (error) {
        return failed(thrown(error));
      }
      if (result === undefined) return "rnull";
      try {
        const json = stringify(result);
        return json === undefined ? failed(["none", typeof result, "", ""]) : `r${json}`;
      } catch (error) {
        const told = thrown(error);
        return failed(told[0] === "memory" ? told : ["unfit", told[1], told[2], ""]);
      }
    },
  };
})()
