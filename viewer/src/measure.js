// Measuring: points on the surface, the length along them, and the area that they enclose.
import {
  BufferGeometry, CanvasTexture, Line, LineBasicMaterial, Points, PointsMaterial,
  Float32BufferAttribute,
} from 'three';

import { areaText, lengthText, metres } from './geo.js';

const COLOUR = 0xff5a1f;

function dot() {
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 64;
  const pen = canvas.getContext('2d');
  pen.arc(32, 32, 26, 0, 2 * Math.PI);
  pen.fillStyle = '#fff';
  pen.fill();
  pen.lineWidth = 12;
  pen.strokeStyle = '#ff5a1f';
  pen.stroke();
  return new CanvasTexture(canvas);
}

export class Measure {
  constructor(view, show) {
    this.view = view;
    this.show = show;
    this.active = false;
    this.points = [];
    const geometry = new BufferGeometry();
    const front = { depthTest: false, depthWrite: false, transparent: true };
    this.line = new Line(geometry, new LineBasicMaterial({ color: COLOUR, ...front }));
    this.dots = new Points(geometry, new PointsMaterial({
      size: 12 * view.renderer.getPixelRatio(), sizeAttenuation: false, map: dot(),
      toneMapped: false, ...front,
    }));
    for (const item of [this.line, this.dots]) {
      item.frustumCulled = false;
      item.renderOrder = 10;
      item.raycast = () => {};
    }
    this.geometry = geometry;
  }

  start() {
    this.active = true;
    this.clear();
  }

  stop() {
    this.active = false;
    this.clear();
    this.show(null);
  }

  clear() {
    this.points = [];
    this.#update();
  }

  undo() {
    this.points.pop();
    this.#update();
  }

  add(hit) {
    this.points.push(hit);
    this.#update();
  }

  #update() {
    const { scene } = (this.points[0]?.side ?? this.view.sides[0]);
    for (const side of this.view.sides) side.marks.clear();
    if (this.points.length) {
      const flat = this.points.flatMap(({ point }) => [point.x, point.y, point.z]);
      this.geometry.setAttribute('position', new Float32BufferAttribute(flat, 3));
      this.view.sides.find((side) => side.scene === scene).marks.add(this.line, this.dots);
    }
    this.view.touch();
    if (this.active) this.show(this.#result());
  }

  #result() {
    const places = this.points.map(({ point, height }) => ({ x: point.x, z: point.z, height }));
    let level = 0;
    let slope = 0;
    for (let i = 1; i < places.length; i++) {
      const run = Math.hypot(places[i].x - places[i - 1].x, places[i].z - places[i - 1].z);
      level += run;
      slope += Math.hypot(run, places[i].height - places[i - 1].height);
    }
    const rows = [['Points', String(places.length)]];
    if (places.length > 1) {
      const first = places[0];
      const last = places.at(-1);
      const bearing = (Math.atan2(last.x - first.x, first.z - last.z) * 180 / Math.PI + 360) % 360;
      rows.push(
        ['Horizontal', lengthText(level)],
        ['Along the slope', lengthText(slope)],
        ['Height difference', `${last.height >= first.height ? '+' : '−'}${metres(Math.abs(last.height - first.height))} m`],
        ['Bearing', `${bearing.toFixed(1)}°`],
      );
    }
    if (places.length > 2) {
      let twice = 0;
      places.forEach((place, i) => {
        const next = places[(i + 1) % places.length];
        twice += place.x * next.z - next.x * place.z;
      });
      rows.push(['Area', areaText(Math.abs(twice) / 2)]);
    }
    return rows;
  }
}
