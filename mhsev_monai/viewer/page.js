"use strict";
// The page of one scan: NiiVue draws the slices, this script draws the marks and ties both to the page's controls.

const AXES = ["sagittal", "coronal", "axial"];
const LETTERS = [["L", "R"], ["P", "A"], ["I", "S"]];
// Across and down a slice run these world axes; the third one leads through the slices. By NiiVue's numbers of planes.
const PLANES = { 0: [0, 1, 2], 1: [0, 2, 1], 2: [1, 2, 0] };
const KEYS = {
  ArrowUp: [0, 0, 1], ArrowDown: [0, 0, -1],
  // To the left of the picture lies the patient's right.
  ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0],
  PageUp: [0, 1, 0], PageDown: [0, -1, 0],
};
const NEAR_SLICES = 1.5;
const RING_MM = 5;
const LEAST_RING_PIXELS = 9;
const SVG = "http://www.w3.org/2000/svg";

const element = (id) => document.getElementById(id);

function viewer() {
  const none = niivue.DRAG_MODE.none;
  return new niivue.Niivue({
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    sliceType: 3,
    multiplanarShowRender: 0,
    showAllOrientationMarkers: true,
    isOrientationTextVisible: true,
    fontColor: [1, 1, 1, 1],
    fontMinPx: 18,
    crosshairColor: [1, 0.82, 0.4, 0.7],
    crosshairWidth: 0.4,
    crosshairWidthUnit: "percent",
    crosshairGap: 8,
    multiplanarPadPixels: 6,
    isColorbar: false,
    isNearestInterpolation: true,
    dragMode: none,
    dragAndDropEnabled: false,
    scrollRequiresFocus: true,
    clipPlaneHotKey: "",
    cycleClipPlaneHotKey: "",
    viewModeHotKey: "",
    loadingText: "",
    logLevel: "error",
  });
}

/** Shares of the grid's sides of a world position. Unasked, NiiVue takes an oblique scan for a straight one. */
function fractionOf(nv, mm) {
  return nv.mm2frac(mm, 0, true);
}

/** Voxel under the crosshair, along right, front, top. */
function voxel(nv) {
  return Array.from(nv.frac2vox(nv.scene.crosshairPos), Math.round);
}

function moveTo(nv, target) {
  const sides = nv.volumes[0].dimsRAS.slice(1, 4);
  const inside = target.map((index, axis) => Math.min(Math.max(index, 0), sides[axis] - 1));
  nv.scene.crosshairPos = nv.vox2frac(inside);
  nv.createOnLocationChange();
  nv.drawScene();
}

function moveToSpot(nv, spot) {
  nv.scene.crosshairPos = fractionOf(nv, spot.position_mm);
  nv.createOnLocationChange();
  nv.drawScene();
}

/** Where on the canvas a position lies on one of the slices shown; null where the slice is too far away. */
function onSlice(nv, slice, fraction) {
  const axes = PLANES[slice.axCorSag];
  if (!axes || !slice.fovMM) return null;
  const sides = nv.volumes[0].dimsRAS.slice(1, 4);
  const distance = Math.abs(fraction[axes[2]] - nv.scene.crosshairPos[axes[2]]) * sides[axes[2]];
  if (distance > NEAR_SLICES) return null;
  // The slices are drawn on the straightened grid.
  const mm = nv.frac2mm(fraction);
  let [left, top, width, height] = slice.leftTopWidthHeight;
  let across = (mm[axes[0]] - slice.leftTopMM[0]) / slice.fovMM[0];
  const down = 1 - (mm[axes[1]] - slice.leftTopMM[1]) / slice.fovMM[1];
  if (width < 0) {
    // A mirrored slice has a negative width.
    left += width;
    width = -width;
    across = 1 - across;
  }
  const ratio = nv.uiData.dpr || 1;
  return {
    x: (left + across * width) / ratio,
    y: (top + down * height) / ratio,
    radius: Math.max(LEAST_RING_PIXELS, (RING_MM * width) / Math.abs(slice.fovMM[0]) / ratio),
  };
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function mark(spot, where) {
  const { x, y, radius } = where;
  if (spot.kind === "candidate") {
    return [shape("rect", { class: "candidate", x: x - 3, y: y - 3, width: 6, height: 6 })];
  }
  const ring = { cx: x, cy: y, r: radius };
  const number = shape("text", { x: x + radius + 2, y: y - radius + 4 });
  number.textContent = spot.number;
  return [shape("circle", { ...ring, class: "edge" }), shape("circle", { ...ring, class: spot.kind }), number];
}

function drawMarks(nv, spots) {
  const shown = new Set([...document.querySelectorAll("[data-marks]:checked")].map((box) => box.dataset.marks));
  const drawn = [];
  for (const spot of spots) {
    if (!shown.has(spot.kind)) continue;
    const fraction = fractionOf(nv, spot.position_mm);
    for (const slice of nv.screenSlices) {
      const where = onSlice(nv, slice, fraction);
      if (where) drawn.push(...mark(spot, where));
    }
  }
  element("marks").replaceChildren(...drawn);
}

function tellPlace(nv, spots) {
  const at = voxel(nv);
  const mm = nv.frac2mm(nv.scene.crosshairPos, 0, true);
  const told = LETTERS.map((ends, axis) => `${ends[Number(mm[axis] >= 0)]} ${Math.abs(mm[axis]).toFixed(1)}`);
  const here = spots.find((spot) => spot.number && nv.frac2vox(fractionOf(nv, spot.position_mm)).every((v, axis) => Math.round(v) === at[axis]));
  const spot = here ? `, ${here.kind === "finding" ? "finding" : "less likely spot"} ${here.number}` : "";
  const slices = AXES.map((name, axis) => `${name} ${at[axis] + 1}`);
  element("place").textContent = `Crosshair at ${told.join(", ")} mm${spot}. Slices: ${slices.join(", ")}.`;
  AXES.forEach((name, axis) => {
    const slider = element(name);
    slider.value = at[axis];
    slider.setAttribute("aria-valuetext", `slice ${at[axis] + 1} of ${Number(slider.max) + 1}`);
  });
  for (const button of document.querySelectorAll("[data-spot]")) {
    button.setAttribute("aria-current", String(Boolean(here) && Number(button.dataset.spot) === here.number));
  }
}

function tieControls(nv, layers, spots) {
  const sides = nv.volumes[0].dimsRAS.slice(1, 4);
  AXES.forEach((name, axis) => {
    const slider = element(name);
    slider.max = sides[axis] - 1;
    slider.addEventListener("input", () => {
      const target = voxel(nv);
      target[axis] = Number(slider.value);
      moveTo(nv, target);
    });
  });
  element("plane").addEventListener("change", (event) => nv.setSliceType(Number(event.target.value)));
  element("slices").addEventListener("keydown", (event) => {
    const step = KEYS[event.key];
    if (!step || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    moveTo(nv, voxel(nv).map((index, axis) => index + step[axis]));
  });
  for (const box of document.querySelectorAll("[data-layer]")) {
    const index = layers.findIndex((layer) => layer.key === box.dataset.layer);
    box.addEventListener("change", () => nv.setOpacity(index, box.checked ? layers[index].opacity : 0));
  }
  for (const box of document.querySelectorAll("[data-marks]")) {
    box.addEventListener("change", () => drawMarks(nv, spots));
  }
  for (const button of document.querySelectorAll("[data-spot]")) {
    const spot = spots.find((each) => each.number === Number(button.dataset.spot));
    button.addEventListener("click", () => moveToSpot(nv, spot));
  }
}

async function show() {
  const { layers, spots } = await (await fetch("scan.json")).json();
  const nv = viewer();
  await nv.attachToCanvas(element("slices"));
  await nv.loadVolumes(layers.map(({ url, colormap, cal_min, cal_max, opacity }) => ({ url, colormap, cal_min, cal_max, opacity })));
  // Marks follow every drawing: zoom, another plane and another size of the window move them, too.
  const draw = nv.drawScene.bind(nv);
  nv.drawScene = (...rest) => {
    const done = draw(...rest);
    drawMarks(nv, spots);
    return done;
  };
  nv.onLocationChange = () => tellPlace(nv, spots);
  tieControls(nv, layers, spots);
  const first = spots.find((spot) => spot.number);
  if (first) moveToSpot(nv, first);
  else moveTo(nv, nv.volumes[0].dimsRAS.slice(1, 4).map((side) => Math.floor(side / 2)));
  document.body.dataset.ready = "yes";
}

show().catch((error) => {
  const told = "The slices cannot be shown: this browser has no WebGL 2, or the page's server has ended. The lists below stay true.";
  element("place").textContent = told;
  console.error(error);
});
