// Sorting of tables, and what opens and closes. Without it the page says all the same.
(() => {
  "use strict";

  const words = new Intl.Collator("en", { numeric: true });

  // What a row is sorted by in one column: a number, or words; NaN for numbers that are missing.
  const value = (row, column, numeric) => {
    const cell = row.cells[column];
    if (!numeric) return cell.textContent.trim();
    return cell.dataset.key === undefined ? NaN : Number(cell.dataset.key);
  };

  const compare = (a, b, sign) => {
    if (typeof a === "string") return sign * words.compare(a, b);
    if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
    return a === b ? 0 : a < b ? -sign : sign;
  };

  // Largest numbers come first at the first click, words from A to Z.
  const sort = (table, head) => {
    const numeric = head.classList.contains("number");
    const first = numeric ? "descending" : "ascending";
    const other = numeric ? "ascending" : "descending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    const sign = order === "ascending" ? 1 : -1;
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [value(row, head.cellIndex, numeric), row]);
    rows.sort((a, b) => compare(a[0], b[0], sign));
    for (const each of table.tHead.rows[0].cells) each.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    body.append(...rows.map((row) => row[1]));
  };

  for (const table of document.querySelectorAll("table[data-sorts]")) {
    for (const head of table.tHead.rows[0].cells) {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      button.addEventListener("click", () => sort(table, head));
      head.append(button);
    }
  }

  // A link to something that is folded away opens it.
  const open = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (let each = target; each; each = each.parentElement) {
      if (each.tagName === "DETAILS") each.open = true;
    }
    if (target) target.scrollIntoView();
  };
  addEventListener("hashchange", open);
  if (location.hash) open();

  for (const group of document.querySelectorAll("[data-folds]")) {
    const all = Array.from(group.querySelectorAll("details"));
    const tools = document.createElement("p");
    tools.className = "tools";
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Open all";
    button.addEventListener("click", () => {
      const opens = !all.every((each) => each.open);
      for (const each of all) each.open = opens;
    });
    const tell = () => {
      button.textContent = all.every((each) => each.open) ? "Close all" : "Open all";
    };
    for (const each of all) each.addEventListener("toggle", tell);
    tools.append(button);
    group.prepend(tools);
  }

  // On paper nothing can be opened: what is folded away is printed, long tables aside.
  let closed = [];
  addEventListener("beforeprint", () => {
    closed = Array.from(document.querySelectorAll("details:not([open]):not([data-long])"));
    for (const each of closed) each.open = true;
  });
  addEventListener("afterprint", () => {
    for (const each of closed) each.open = false;
  });
})();
