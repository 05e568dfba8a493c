// Sorts by a column; what stands below a row moves with it, and controls stay last.
for (const head of document.querySelectorAll("tr.sortable th")) {
  head.addEventListener("click", () => {
    const table = head.closest("table");
    const column = head.cellIndex;
    const down = head.getAttribute("aria-sort") !== "descending";
    for (const other of table.querySelectorAll("[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const value = (body) => {
      const cell = body.rows[0].cells[column];
      return column === 0 ? cell.textContent : parseFloat(cell.dataset.value);
    };
    const order = (a, b) => {
      const control = a.classList.contains("control") - b.classList.contains("control");
      if (control) return control;
      const [x, y] = [value(a), value(b)];
      if (column === 0) return down ? y.localeCompare(x) : x.localeCompare(y);
      if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
      return down ? y - x : x - y;
    };
    const bodies = [...table.tBodies].sort(order);
    let ruled = false;
    for (const body of bodies) {
      const control = body.classList.contains("control");
      body.classList.toggle("first", control && !ruled);
      ruled = ruled || control;
      table.append(body);
    }
  });
}
