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

// A word, a family or a year leaves the rows of the table of all methods that have it; numbers sort.
for (const frame of document.querySelectorAll(".filtered")) {
  const bodies = [...frame.querySelectorAll("tbody")];
  const label = document.createElement("label");
  const field = document.createElement("input");
  const count = document.createElement("span");
  label.className = "filter";
  field.type = "search";
  field.placeholder = "hashing 2019";
  label.append("Rows with ", field, " ", count);
  const filter = () => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const has = (body, word) => [...body.rows[0].cells].slice(0, 3).some((cell) => cell.textContent.toLowerCase().includes(word));
    for (const body of bodies) body.hidden = !words.every((word) => has(body, word));
    count.textContent = `${bodies.filter((body) => !body.hidden).length} of ${bodies.length}`;
  };
  field.addEventListener("input", filter);
  filter();
  frame.prepend(label);
}

// Rows can be left out of a plot; its axes stay as they are.
for (const figure of document.querySelectorAll("figure.plot")) {
  const parts = [...figure.querySelectorAll("[data-row]")];
  const names = [...new Set(parts.map((part) => part.getAttribute("data-row")))];
  if (names.length < 2) continue;
  const frame = document.createElement("details");
  const summary = document.createElement("summary");
  frame.className = "choice";
  summary.textContent = `Rows of this plot (${names.length})`;
  const boxes = names.map((name) => {
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = true;
    box.value = name;
    return box;
  });
  const draw = () => {
    const shown = new Set(boxes.filter((box) => box.checked).map((box) => box.value));
    for (const part of parts) part.style.display = shown.has(part.getAttribute("data-row")) ? "" : "none";
    summary.textContent = `Rows of this plot (${shown.size} of ${names.length})`;
  };
  const set = (text, value) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => {
      for (const box of boxes) box.checked = value;
      draw();
    });
    return button;
  };
  const labels = boxes.map((box) => {
    const label = document.createElement("label");
    label.append(box, ` ${box.value}`);
    box.addEventListener("change", draw);
    return label;
  });
  frame.append(summary, set("all", true), set("none", false), ...labels);
  figure.append(frame);
}

// Axes that may have either scale.
for (const figure of document.querySelectorAll("figure.plot")) {
  const scales = [...figure.querySelectorAll("[data-scale]")];
  if (scales.length < 2) continue;
  const button = document.createElement("button");
  const other = () => scales.find((scale) => scale.hidden);
  button.type = "button";
  button.className = "scale";
  button.textContent = `${other().dataset.scale} axis`;
  button.addEventListener("click", () => {
    for (const scale of scales) scale.hidden = !scale.hidden;
    button.textContent = `${other().dataset.scale} axis`;
  });
  figure.append(button);
}
