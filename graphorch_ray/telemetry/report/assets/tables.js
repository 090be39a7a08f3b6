// Tables: sorting by a click or a key on a heading, and finding a row.
"use strict";

/** Makes the headings of a table sort it; every second time the other way. */
function sortable(table) {
  const body = table.tBodies[0];
  const heads = [...table.tHead.rows[0].cells];
  for (const [column, head] of heads.entries()) {
    const button = head.querySelector("button.sort");
    if (!button) continue;
    button.addEventListener("click", () => {
      const numeric = button.dataset.kind === "number";
      const was = head.getAttribute("aria-sort");
      // Numbers begin with the largest: that is what one looks for.
      const rising = was === "none" ? !numeric : was === "descending";
      for (const other of heads) if (other.hasAttribute("aria-sort")) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => {
        const cell = row.cells[column];
        return numeric ? Number(cell.dataset.value) : cell.textContent.trim();
      };
      const keyed = [...body.rows].map((row) => [value(row), row]);
      const compare = numeric
        ? (one, other) => one[0] - other[0]
        : (one, other) => one[0].localeCompare(other[0], undefined, { numeric: true });
      keyed.sort((one, other) => (rising ? compare(one, other) : -compare(one, other)));
      body.append(...keyed.map(([, row]) => row));
    });
  }
}

/** Hides the rows whose first cell lacks what is typed; says how many are left. */
function findable(table, input, told) {
  const rows = [...table.tBodies[0].rows];
  const texts = rows.map((row) => row.cells[0].textContent.toLowerCase());
  input.addEventListener("input", () => {
    const wanted = input.value.trim().toLowerCase();
    let left = 0;
    for (const [at, row] of rows.entries()) {
      row.hidden = !texts[at].includes(wanted);
      left += row.hidden ? 0 : 1;
    }
    told.textContent = wanted ? `${left} of ${rows.length} nodes` : "";
  });
}
