// What the model did with a picture: the patches it computed again, and the tokens it kept.
//
// Both are grids over the whole picture. Recomputed patches are tinted; where no token was kept, the picture is dimmed.

import { svg } from "./dom.js";

const MOST_CELLS = 1 << 16;

/** The cells of a grid, checked; null where the grid or a cell is none. */
export function gridOf(rows, columns, cells) {
  const isGrid = Number.isInteger(rows) && Number.isInteger(columns) && rows > 0 && columns > 0;
  if (!isGrid || rows * columns > MOST_CELLS || !Array.isArray(cells)) return null;
  const has = new Uint8Array(rows * columns);
  for (const cell of cells) {
    if (!Number.isInteger(cell) || cell < 0 || cell >= has.length) return null;
    has[cell] = 1;
  }
  return { rows, columns, has, count: has.reduce((sum, one) => sum + one, 0) };
}

/** The area of the cells that are set, or of those that are not, as a path: one rectangle for each run of a row. */
export function areaOf({ rows, columns, has }, wanted = 1) {
  let path = "";
  for (let row = 0; row < rows; row += 1) {
    for (let from = 0; from < columns; ) {
      let to = from;
      while (to < columns && has[row * columns + to] === wanted) to += 1;
      if (to > from) path += `M${from} ${row}H${to}V${row + 1}H${from}Z`;
      from = Math.max(to, from + 1);
    }
  }
  return path;
}

/** The outline of the cells that are set: each edge that has one on one side only. */
export function outlineOf({ rows, columns, has }) {
  const at = (row, column) =>
    row >= 0 && column >= 0 && row < rows && column < columns ? has[row * columns + column] : 0;
  let path = "";
  for (let row = 0; row <= rows; row += 1) {
    for (let column = 0; column <= columns; column += 1) {
      if (at(row, column) !== at(row - 1, column)) path += `M${column} ${row}h1`;
      if (at(row, column) !== at(row, column - 1)) path += `M${column} ${row}v1`;
    }
  }
  return path;
}

/** Draws an overlay into two layers, and says it in words; null: there is none. */
export class OverlayLayers {
  constructor(root) {
    this.kept = svg("svg", { class: "layer kept", preserveAspectRatio: "none", "aria-hidden": "true" });
    this.recomputed = svg("svg", { class: "layer recomputed", preserveAspectRatio: "none", "aria-hidden": "true" });
    root.append(this.kept, this.recomputed);
  }

  draw(overlay) {
    const patches = overlay && gridOf(overlay.rows, overlay.columns, overlay.recomputed);
    const tokens = overlay && gridOf(overlay.kept_rows, overlay.kept_columns, overlay.kept);
    fill(this.recomputed, patches, patches && areaOf(patches), patches && outlineOf(patches));
    fill(this.kept, tokens, tokens && areaOf(tokens, 0), tokens && outlineOf(tokens));
    return { patches, tokens };
  }
}

function fill(layer, grid, area, outline) {
  if (!grid) return layer.replaceChildren();
  layer.setAttribute("viewBox", `0 0 ${grid.columns} ${grid.rows}`);
  layer.replaceChildren(svg("path", { class: "area", d: area }), svg("path", { class: "outline", d: outline }));
}
