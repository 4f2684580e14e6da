// The page: what the buttons, keys and the pointer do.
import { Vector3 } from 'three';

import { lengthText, lonLatText, metres, project, roundLength } from './geo.js';
import { LAYERS, RAMP } from './material.js';
import { Measure } from './measure.js';
import { copy, download, fromHash, screenshot, toHash } from './share.js';
import { View } from './view.js';

const $ = (id) => document.getElementById(id);
const scene = JSON.parse($('scene').textContent);
const NAMES = {
  colour: 'Colour', class: 'Class', height: 'Height', object: 'Object', splats: 'Splats',
};
const MONTHS = ['January', 'February', 'March', 'April', 'May', 'June', 'July', 'August',
  'September', 'October', 'November', 'December'];
const MEANINGS = {
  colour: 'The world in its colours',
  class: 'What the land is, in the colours of the legend',
  height: 'How high the surface is',
  object: 'Each building and tree in a colour of its own',
  splats: 'The world drawn as soft discs of colour (Gaussian splats) instead of a mesh',
};
const CLICK = 5; // pixels that a click may move
const NARROW = 720; // pixels, as in style.css
const GAP = 16; // pixels between the world and the cards at first

function element(tag, text = '', className = '') {
  const made = document.createElement(tag);
  if (text) made.textContent = text;
  if (className) made.className = className;
  return made;
}

let toastTimer = 0;
function toast(text) {
  $('toast').textContent = text;
  $('toast').classList.add('on');
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => $('toast').classList.remove('on'), 3500);
}

function fail(text) {
  toast(text);
  clearTimeout(toastTimer);
  window.earthgen ??= {};
  Object.assign(window.earthgen, { error: text, ready: true });
}

function start() {
  let view;
  try {
    view = new View($('view'), scene);
  } catch (error) {
    fail(`This browser cannot draw the world: ${error.message}. WebGL 2 must be switched on.`);
    return;
  }
  // Blur behind the cards is dear where no graphics card draws it.
  document.documentElement.classList.toggle('plain', view.slow);
  const worlds = scene.worlds;
  const hidden = new Set();
  const byCode = new Map(worlds.flatMap((world) => world.classes.map((one) => [one.code, one])));

  // Title, slider, facts
  $('title').querySelector('h1').textContent = scene.title;
  $('title').querySelector('p').textContent = worlds[0].summary;
  const credits = [...new Set(worlds.map((world) => world.credits).filter(Boolean))].join(' · ');
  $('credits').textContent = credits;
  $('credits').hidden = !credits;
  const facts = $('facts').querySelector('dl');
  for (const world of worlds) {
    if (worlds.length > 1) facts.append(element('dt', world.name, 'world'));
    for (const [name, value] of world.facts) {
      if (name === 'World' && worlds.length > 1) continue;
      facts.append(element('dt', name), element('dd', value));
    }
  }
  $('facts').querySelector('pre').textContent = $('licences').textContent;

  // Theme
  const dark = matchMedia('(prefers-color-scheme: dark)');
  let theme = dark.matches ? 'dark' : 'light';
  function setTheme(next) {
    theme = next;
    document.documentElement.dataset.theme = theme;
    view.setTheme(theme);
  }
  dark.addEventListener('change', () => setTheme(dark.matches ? 'dark' : 'light'));
  setTheme(theme);

  // Layers and legend
  const layers = LAYERS.filter((layer) =>
    layer !== 'splats' || worlds.some((world) => world.splats));
  const note = worlds.map((world) => world.note).find(Boolean) ?? '';
  $('note').hidden = !note;
  $('note').textContent = note;
  function setLayer(layer) {
    if (!layers.includes(layer)) return;
    view.setLayer(layer);
    $('ramp').hidden = layer !== 'height';
    $('light').inert = layer === 'splats';
    $('light').title = layer === 'splats' ? 'Splats have the light of one hour in their colours' : '';
    for (const button of $('layers').children) {
      const on = button.dataset.layer === layer;
      button.setAttribute('aria-checked', String(on));
      button.tabIndex = on ? 0 : -1;
    }
  }
  for (const layer of layers) {
    const button = element('button', NAMES[layer]);
    button.dataset.layer = layer;
    button.title = MEANINGS[layer];
    button.setAttribute('role', 'radio');
    button.addEventListener('click', () => setLayer(layer));
    $('layers').append(button);
  }
  $('layers').addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    event.stopPropagation();
    const next = layers[(layers.indexOf(view.layer) + step + layers.length) % layers.length];
    setLayer(next);
    $('layers').querySelector(`[data-layer=${next}]`).focus();
  });
  const pen = $('ramp').querySelector('canvas').getContext('2d');
  const gradient = pen.createLinearGradient(0, 0, 256, 0);
  RAMP.forEach((colour, i) => gradient.addColorStop(i / (RAMP.length - 1), colour));
  pen.fillStyle = gradient;
  pen.fillRect(0, 0, 256, 1);
  const ends = $('ramp').querySelectorAll('output');
  worlds[0].heights.forEach((height, i) => { ends[i].textContent = `${metres(height)} m`; });

  const rows = new Map();
  function setHidden(codes) {
    hidden.clear();
    for (const code of codes) if (byCode.has(code)) hidden.add(code);
    for (const [code, row] of rows) row.querySelector('input').checked = !hidden.has(code);
    $('all').hidden = hidden.size === 0;
    view.hide(hidden);
  }
  for (const one of worlds[0].classes.concat(worlds[1]?.classes ?? [])) {
    if (rows.has(one.code)) continue;
    const row = element('label');
    const box = element('input');
    box.type = 'checkbox';
    const swatch = element('i');
    swatch.style.setProperty('--swatch', one.color);
    const share = 100 * one.share;
    row.append(box, swatch, element('span', one.title),
      element('small', share >= 0.1 ? `${share.toFixed(1)} %` : '< 0.1 %'));
    row.title = `${one.title}. Alt and click: only this one.`;
    row.addEventListener('click', (event) => {
      if (!event.altKey) return;
      event.preventDefault();
      const others = [...byCode.keys()].filter((code) => code !== one.code);
      setHidden(hidden.size === others.length && !hidden.has(one.code) ? [] : others);
    });
    box.addEventListener('change', () => {
      if (box.checked) hidden.delete(one.code);
      else hidden.add(one.code);
      setHidden([...hidden]);
    });
    const item = element('li');
    item.append(row);
    $('legend').append(item);
    rows.set(one.code, row);
  }
  $('all').addEventListener('click', () => setHidden([]));

  // Sun
  function setSun(time) {
    view.setSun(time);
    $('hour').value = time.hour;
    $('day').value = time.day;
    const date = new Date(2023, 0, time.day);
    const clock = `${String(Math.floor(time.hour)).padStart(2, '0')}:${String(Math.round(time.hour % 1 * 60)).padStart(2, '0')}`;
    const height = view.sunNow.elevation;
    $('sun').textContent = `${date.getDate()} ${MONTHS[date.getMonth()].slice(0, 3)} ${clock} · ${height > 0 ? `${height.toFixed(0)}° high` : 'night'}`;
    $('sun').title = 'Solar time: at 12:00 the sun stands in the south or north';
  }
  for (const id of ['hour', 'day']) {
    $(id).addEventListener('input', () =>
      setSun({ hour: Number($('hour').value), day: Number($('day').value) }));
  }
  function setShadows(on) {
    $('shadows').checked = on;
    view.setShadows(on);
  }
  $('shadows').addEventListener('change', () => setShadows($('shadows').checked));

  // The two worlds
  function setSplit(fraction) {
    view.setSplit(fraction);
    $('divider').style.left = `${100 * view.split}%`;
    $('divider').setAttribute('aria-valuenow', String(Math.round(100 * view.split)));
  }
  if (worlds.length > 1) {
    $('divider').hidden = false;
    $('divider').querySelector('.left').textContent = worlds[0].name;
    $('divider').querySelector('.right').textContent = worlds[1].name;
    $('divider').addEventListener('pointerdown', (event) => {
      $('divider').setPointerCapture(event.pointerId);
      event.preventDefault();
      event.stopPropagation();
    });
    $('divider').addEventListener('pointermove', (event) => {
      if ($('divider').hasPointerCapture(event.pointerId)) {
        setSplit(event.clientX / document.documentElement.clientWidth);
      }
    });
    $('divider').addEventListener('keydown', (event) => {
      const step = { ArrowLeft: -0.02, ArrowRight: 0.02 }[event.key];
      if (!step) return;
      event.preventDefault();
      event.stopPropagation();
      setSplit(view.split + step);
    });
  }

  // Measure
  const measure = new Measure(view, (result) => {
    $('result').hidden = !result;
    const list = $('result').querySelector('dl');
    list.replaceChildren();
    for (const [name, value] of result ?? []) {
      list.append(element('dt', name), element('dd', value));
    }
  });
  function toggleMeasure(on = !measure.active) {
    if (on) measure.start();
    else measure.stop();
    $('measure').setAttribute('aria-pressed', String(on));
    document.body.classList.toggle('measuring', on);
  }

  // What is under the pointer
  const where = $('where');
  const touch = matchMedia('(hover: none)').matches;
  where.firstElementChild.textContent = touch ? 'Tap the world' : 'Move the pointer over the world';
  let pinned = null;
  function describe(hit) {
    where.replaceChildren();
    for (const row of rows.values()) row.classList.remove('under');
    if (!hit) {
      where.append(element('span', 'Nothing of the world is there', 'hint'));
      return;
    }
    const { world } = hit.side;
    const part = (label, text) => {
      const span = element('span');
      span.append(element('small', label), element('b', text));
      where.append(span);
      return span;
    };
    const one = byCode.get(hit.code);
    if (one) {
      const span = part('', one.title);
      const swatch = element('i');
      swatch.style.setProperty('--swatch', one.color);
      span.prepend(swatch);
      rows.get(hit.code)?.classList.add('under');
    }
    if (hit.object) part('object', String(hit.object));
    if (hit.row?.height) part('stands', `${metres(hit.row.height)} m high`);
    part('height', `${metres(hit.height)} m`);
    const at = project(world.projection, hit);
    part(world.crs, `${metres(at.east)}, ${metres(at.north)}`);
    part('', lonLatText(hit));
  }
  let pointer = null;
  let asked = false;
  function look() {
    asked = false;
    if (pinned || !pointer) return;
    describe(view.pick(pointer.x, pointer.y));
  }
  function askLook() {
    if (asked) return;
    asked = true;
    requestAnimationFrame(look);
  }
  $('view').addEventListener('pointermove', (event) => {
    pointer = { x: event.clientX, y: event.clientY };
    if (event.buttons === 0) askLook();
  });
  $('view').addEventListener('pointerleave', () => { pointer = null; });
  // The frame of the keyboard's focus is for those who move by keys.
  window.addEventListener('pointerdown', () => document.body.classList.add('pointing'), true);
  window.addEventListener('keydown', () => document.body.classList.remove('pointing'), true);
  let pressed = null;
  $('view').addEventListener('pointerdown', (event) => {
    pressed = event.button === 0 && !event.shiftKey ? event : null;
  });
  $('view').addEventListener('pointerup', (event) => {
    if (!pressed) return;
    if (Math.hypot(event.clientX - pressed.clientX, event.clientY - pressed.clientY) > CLICK) return;
    const hit = view.pick(event.clientX, event.clientY);
    if (measure.active) {
      if (hit) measure.add(hit);
      return;
    }
    pinned = hit?.object ? hit : null;
    view.choose(hit?.side, hit?.object ?? 0);
    describe(hit);
  });

  // Scale, north, progress, address
  function scale() {
    const { clientHeight } = $('view');
    const distance = view.focus(new Vector3()).distanceTo(view.camera.position);
    const perPixel = 2 * distance * Math.tan(view.camera.fov * Math.PI / 360) / clientHeight;
    const length = roundLength(120 * perPixel);
    return { pixels: length / perPixel, text: lengthText(length).replace(/\.0+ /, ' ') };
  }
  view.on('frame', () => {
    const { pixels, text } = scale();
    $('scale').querySelector('span').textContent = text;
    $('scale').querySelector('i').style.width = `${pixels}px`;
    $('compass').querySelector('g').setAttribute('transform', `rotate(${-view.heading} 24 24)`);
    const shown = view.sides.flatMap((side) => side.shown);
    const done = Math.min(...shown.map(({ tiles }) => tiles.loadProgress));
    $('progress').style.width = `${100 * done}%`;
    $('progress').style.opacity = done === 1 ? 0 : 1;
    const failed = shown.flatMap((tiles) => tiles.failed);
    if (failed.length) fail(`A part of the world could not be read: ${failed[0]}`);
  });
  const state = () => ({
    pose: view.pose, layer: view.layer, hidden: [...hidden].sort((a, b) => a - b),
    sun: view.sunTime, shadows: view.shadows, split: worlds.length > 1 ? view.split : null,
  });
  function apply(given) {
    if (given.sun) setSun(given.sun);
    if (given.layer) setLayer(given.layer);
    if (given.hidden) setHidden(given.hidden);
    if (given.shadows !== undefined) setShadows(given.shadows);
    if (given.split !== undefined) setSplit(given.split);
    if (given.pose) view.pose = given.pose;
  }
  view.on('settled', () => {
    window.earthgen.ready = true;
    if (!pinned) askLook();
  });
  window.addEventListener('hashchange', () => apply(fromHash(location.hash)));

  async function share() {
    const hash = toHash(state());
    history.replaceState(null, '', hash);
    const done = await copy(location.href);
    toast(done ? 'A link to this view is in the clipboard'
      : 'The address of the page now leads to this view: copy it from the browser');
  }
  async function picture() {
    const blob = await screenshot(view, {
      title: scene.title, scale: scale(), heading: view.heading, credits,
    });
    download(blob, `${scene.title.replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-|-$/g, '')}.png`);
    toast('The picture is in your downloads');
  }
  function fold(open = document.body.classList.contains('folded')) {
    document.body.classList.toggle('folded', !open);
    $('panel').hidden = !open;
    $('fold').setAttribute('aria-expanded', String(open));
    const box = (id) => $(id).getBoundingClientRect();
    // On a narrow screen the panel lies below, and opens over the world.
    const beside = open && box('panel').width < 0.4 * window.innerWidth;
    const lowest = window.innerWidth > NARROW ? box('tools').bottom : box('title').bottom;
    view.covered = {
      left: GAP,
      right: beside ? window.innerWidth - box('panel').left + GAP : GAP,
      top: lowest + GAP,
      bottom: window.innerHeight - box('readout').top + GAP,
    };
  }
  function escape() {
    if (measure.active) toggleMeasure(false);
    pinned = null;
    view.choose(null, 0);
  }

  const KEYS = [
    ['Home', 'whole world', () => view.home()],
    ['T', 'from above', () => view.turn(view.heading, view.tilt > 85 ? 40 : 89.9)],
    ['N', 'north up', () => view.turn(0, view.tilt)],
    ['M', 'measure', () => toggleMeasure()],
    ['P', 'save a picture', picture],
    ['S', 'copy a link to this view', share],
    ['D', 'light or dark', () => setTheme(theme === 'dark' ? 'light' : 'dark')],
    ['L', 'layers and legend', () => fold()],
    ['1', 'colours', () => setLayer('colour')],
    ['2', 'classes', () => setLayer('class')],
    ['3', 'heights', () => setLayer('height')],
    ['4', 'objects', () => setLayer('object')],
    ...(layers.includes('splats') ? [['5', 'splats: soft discs of colour', () => setLayer('splats')]] : []),
    ['H', 'shadows', () => setShadows(!view.shadows)],
    ['ArrowLeft', 'left', () => view.step(-0.15, 0, 0)],
    ['ArrowRight', 'right', () => view.step(0.15, 0, 0)],
    ['ArrowUp', 'forwards', () => view.step(0, 0.15, 0)],
    ['ArrowDown', 'back', () => view.step(0, -0.15, 0)],
    ['+', 'nearer', () => view.step(0, 0, 0.25)],
    ['=', '', () => view.step(0, 0, 0.25)],
    ['-', 'farther', () => view.step(0, 0, -0.33)],
    ['Q', 'turn left', () => view.turn(view.heading - 15, view.tilt)],
    ['E', 'turn right', () => view.turn(view.heading + 15, view.tilt)],
    ['R', 'look down more', () => view.turn(view.heading, Math.min(view.tilt + 10, 89.9))],
    ['F', 'look down less', () => view.turn(view.heading, Math.max(view.tilt - 10, 3))],
    ['Escape', 'end measuring, let go of an object', escape],
    ['?', 'this list', () => $('keysheet').showModal()],
  ];
  const actions = new Map(KEYS.map(([key, , action]) => [key.toLowerCase(), action]));
  const short = { ArrowLeft: '←', ArrowRight: '→', ArrowUp: '↑', ArrowDown: '↓', Escape: 'Esc' };
  const sheet = $('keysheet').querySelector('dl');
  for (const [label, text] of [['Drag', 'move over the ground'],
    ['Right drag, Shift and drag', 'turn and tilt'], ['Wheel, pinch', 'nearer and farther'],
    ['Click', 'choose an object']]) {
    sheet.append(element('dt', label), element('dd', text));
  }
  for (const [key, text] of KEYS) {
    if (!text) continue;
    const name = element('dt');
    name.append(element('kbd', short[key] ?? key));
    sheet.append(name, element('dd', text));
  }
  window.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector('dialog[open]')) return;
    if (/^(range|text|number)$/.test(event.target.type ?? '') && event.key.startsWith('Arrow')) return;
    if (event.key === 'Backspace' && measure.active) measure.undo();
    else if (actions.has(event.key.toLowerCase())) actions.get(event.key.toLowerCase())();
    else return;
    event.preventDefault();
  });
  const press = (id, key) => $(id).addEventListener('click', () => actions.get(key)());
  press('home', 'home');
  press('top', 't');
  press('measure', 'm');
  press('picture', 'p');
  press('share', 's');
  press('theme', 'd');
  press('keys', '?');
  press('compass', 'n');
  press('fold', 'l');
  $('about').addEventListener('click', () => $('facts').showModal());

  // For programs that drive the page; `settled` says whether all that the view needs is drawn.
  window.earthgen = {
    ready: false, view, scene, state, setSun, setShadows, setLayer, setHidden, setSplit, measure,
    drawn: () => view.sides.map((side) =>
      ({ ...side.tiles.drawn, splats: side.splats?.mesh.geometry.instanceCount ?? 0 })),
    get settled() { return view.settled; },
  };
  fold(window.innerWidth > NARROW);
  view.home(false);
  setLayer('colour');
  setHidden([]);
  setSun(view.sunTime);
  setShadows(view.shadows);
  if (worlds.length > 1) setSplit(0.5);
  apply(fromHash(location.hash));
}

start();
