// The Gaussians of one world as what they are: discs, blended from the back to the front.
import {
  AddEquation, CustomBlending, DataTexture, DynamicDrawUsage, Float32BufferAttribute,
  InstancedBufferAttribute, InstancedBufferGeometry, IntType, Mesh, NearestFilter, OneFactor,
  OneMinusSrcAlphaFactor, RGBAIntegerFormat, ShaderMaterial, UnsignedIntType, Vector2, Vector3,
} from 'three';

import { LOADERS, WORDS, gaussiansOf } from './gaussians.js';
import { CODES } from './material.js';
import { TileSet } from './tiles.js';

const ROW = 1024; // Gaussians in a row of the texture, two texels each
const DETAIL = { hardware: 6, software: 16 }; // pixels of error at which finer tiles are asked for
const MOST = { hardware: 2_000_000, software: 50_000 }; // Gaussians; with more, tiles are coarser
const COARSER = 1.3;

/**
 * The model of the project's own rasteriser (docs/guides/splats.md): a pixel's ray meets the disc at
 * (u, v) deviations from its middle; G = exp(-min(u^2 + v^2, 2 d^2) / 2) with d the pixels from the
 * projected middle. The quad is the box along the axes of the projected Gaussian, out to where it
 * has faded to 1/255.
 */
const VERTEX = `
precision highp usampler2D;
attribute uint order;
uniform usampler2D gaussians;
uniform vec2 canvas;
uniform float egShown[${CODES}];
flat varying vec3 vMiddle, vAlong, vAcross;
flat varying vec4 vColour;
flat varying vec2 vCentre;
vec3 turned(vec4 q, vec3 v) {
  return v + 2.0 * cross(q.xyz, cross(q.xyz, v) + q.w * v);
}
void main() {
  ivec2 at = ivec2(2 * int(order % ${ROW}u), int(order / ${ROW}u));
  uvec4 first = texelFetch(gaussians, at, 0);
  uvec4 second = texelFetch(gaussians, at + ivec2(1, 0), 0);
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside, unless it is seen
  vMiddle = (modelViewMatrix * vec4(uintBitsToFloat(first.xyz), 1.0)).xyz;
  vec4 turn = vec4(unpackSnorm2x16(second.x), unpackSnorm2x16(second.y));
  vec2 size = unpackHalf2x16(second.z);
  vAlong = mat3(modelViewMatrix) * turned(turn, vec3(size.x, 0.0, 0.0));
  vAcross = mat3(modelViewMatrix) * turned(turn, vec3(0.0, size.y, 0.0));
  vColour = vec4((uvec4(first.w) >> uvec4(0u, 8u, 16u, 24u)) & 255u) / 255.0;
  float away = -vMiddle.z;
  float cut = 2.0 * log(255.0 * vColour.a);
  if (away < 0.3 || cut <= 0.0 || egShown[min(second.w, ${CODES - 1}u)] < 0.5) return;
  float focal = 0.5 * canvas.y * projectionMatrix[1][1];
  vec2 seen = vMiddle.xy / away;
  vec2 a = focal / away * (vAlong.xy + seen * vAlong.z);
  vec2 b = focal / away * (vAcross.xy + seen * vAcross.z);
  float xx = a.x * a.x + b.x * b.x + 0.5;
  float xy = a.x * a.y + b.x * b.y;
  float yy = a.y * a.y + b.y * b.y + 0.5;
  float mean = 0.5 * (xx + yy);
  float apart = sqrt(max(0.25 * (xx - yy) * (xx - yy) + xy * xy, 0.0));
  vec2 axis = abs(xy) > 1e-6 ? normalize(vec2(mean + apart - yy, xy))
    : xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0);
  // A little wider: perspective shifts the nearer half of a disc.
  vec2 reach = min(1.05 * sqrt(cut * vec2(mean + apart, mean - apart)) + 1.0, canvas.y);
  vec2 corner = axis * position.x * reach.x + vec2(-axis.y, axis.x) * position.y * reach.y;
  vec4 clip = projectionMatrix * vec4(vMiddle, 1.0);
  vCentre = (clip.xy / clip.w * 0.5 + 0.5) * canvas;
  clip.xy += 2.0 * corner / canvas * clip.w;
  gl_Position = clip;
}`;

const FRAGMENT = `
flat varying vec3 vMiddle, vAlong, vAcross;
flat varying vec4 vColour;
flat varying vec2 vCentre;
uniform vec2 canvas;
uniform float perPixel; // of the plane at distance 1
void main() {
  vec3 ray = vec3((gl_FragCoord.xy - 0.5 * canvas) * perPixel, -1.0);
  vec3 normal = cross(vAlong, vAcross);
  vec2 off = gl_FragCoord.xy - vCentre;
  float reach = 2.0 * dot(off, off);
  float slope = dot(ray, normal);
  if (abs(slope) > 1e-5 * length(normal)) {
    float t = dot(vMiddle, normal) / slope;
    vec3 from = t * ray - vMiddle;
    float u = dot(from, vAlong) / dot(vAlong, vAlong);
    float v = dot(from, vAcross) / dot(vAcross, vAcross);
    if (t > 0.0) reach = min(reach, u * u + v * v);
  }
  float alpha = min(vColour.a * exp(-0.5 * reach), 0.999);
  if (alpha < 1.0 / 255.0) discard;
  gl_FragColor = vec4(vColour.rgb * alpha, alpha); // as displayed: no further conversion
}`;

/**
 * The worker: keeps the places of all Gaussians, and answers a camera with those before it, from the
 * far to the near. A counting sort of the depths in 65,536 steps.
 */
function sorter() {
  let places = new Float32Array(0);
  const keys = { far: 0, starts: new Uint32Array(65537) };
  onmessage = ({ data }) => {
    if (data.places) places = data.places;
    const { from, along, number } = data;
    const count = places.length / 3;
    const depths = new Float32Array(count);
    let low = Infinity;
    let high = 0;
    for (let i = 0; i < count; i++) {
      const depth = (places[3 * i] - from[0]) * along[0] +
        (places[3 * i + 1] - from[1]) * along[1] + (places[3 * i + 2] - from[2]) * along[2];
      depths[i] = depth;
      if (depth > 0) {
        if (depth < low) low = depth;
        if (depth > high) high = depth;
      }
    }
    const step = high > low ? 65535 / (high - low) : 0;
    const { starts } = keys;
    starts.fill(0);
    for (let i = 0; i < count; i++) {
      if (depths[i] > 0) starts[((high - depths[i]) * step | 0) + 1]++;
    }
    for (let i = 1; i < starts.length; i++) starts[i] += starts[i - 1];
    const order = new Uint32Array(starts[65536]);
    for (let i = 0; i < count; i++) {
      if (depths[i] > 0) order[starts[(high - depths[i]) * step | 0]++] = i;
    }
    postMessage({ order, number }, [order.buffer]);
  };
}

function startSorter() {
  const url = URL.createObjectURL(new Blob([`(${sorter})()`], { type: 'text/javascript' }));
  const worker = new Worker(url);
  URL.revokeObjectURL(url);
  return worker;
}

/** The Gaussians of one world. `mesh` goes into its scene. */
export class SplatTiles extends TileSet {
  constructor(world, address, frame, materials, slow, onChange) {
    super(address, frame, LOADERS, onChange);
    this.base = slow ? DETAIL.software : DETAIL.hardware;
    this.most = slow ? MOST.software : MOST.hardware;
    this.tiles.errorTarget = this.base;
    this.parts = new Map(); // by the scene of a tile
    this.stale = true; // whether other tiles are visible than those in the texture
    this.tiles.addEventListener('load-model', ({ scene }) => {
      this.parts.set(scene, gaussiansOf(scene, this.group.matrix));
      this.stale = true;
    });
    this.tiles.addEventListener('dispose-model', ({ scene }) => this.parts.delete(scene));
    this.tiles.addEventListener('tile-visibility-change', () => { this.stale = true; });
    this.count = 0; // in the texture
    this.next = null; // the texture of the layout that is being sorted
    this.asked = null; // the camera that was sorted for, or is being
    this.busy = false;
    this.number = 0;
    this.worker = startSorter();
    this.worker.onmessage = ({ data }) => this.#take(data);
    this.mesh = this.#makeMesh(materials);
  }

  #makeMesh(materials) {
    const geometry = new InstancedBufferGeometry();
    const corners = [-1, -1, 0, 1, -1, 0, 1, 1, 0, -1, 1, 0];
    geometry.setAttribute('position', new Float32BufferAttribute(corners, 3));
    geometry.setIndex([0, 1, 2, 0, 2, 3]);
    geometry.instanceCount = 0;
    const material = new ShaderMaterial({
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      uniforms: {
        gaussians: { value: null },
        canvas: { value: new Vector2(1, 1) },
        perPixel: { value: 1 },
        egShown: materials.uniforms.egShown,
      },
      transparent: true,
      depthTest: false,
      depthWrite: false,
      blending: CustomBlending,
      blendEquation: AddEquation,
      blendSrc: OneFactor,
      blendDst: OneMinusSrcAlphaFactor,
    });
    const mesh = new Mesh(geometry, material);
    mesh.frustumCulled = false;
    mesh.visible = false;
    mesh.raycast = () => {};
    return mesh;
  }

  /** Whether there is something to draw. */
  get ready() {
    return this.mesh.material.uniforms.gaussians.value !== null;
  }

  get settled() {
    return super.settled && this.ready && !this.busy && !this.stale;
  }

  /** Ask for tiles, and for an order, as the camera needs them. */
  update(camera, width, height) {
    super.update(camera, width, height);
    const { uniforms } = this.mesh.material;
    uniforms.canvas.value.set(width, height);
    uniforms.perPixel.value = 2 * Math.tan(camera.fov * Math.PI / 360) / height;
    if (this.busy) return;
    const from = camera.position.toArray();
    const along = camera.getWorldDirection(new Vector3()).toArray();
    const other = !this.asked ||
      [...from, ...along].some((value, i) => Math.abs(value - this.asked[i]) > 1e-6);
    if (!this.stale && !other) return;
    const places = this.stale ? this.#layOut() : undefined;
    this.asked = [...from, ...along];
    this.busy = true;
    this.worker.postMessage({ places, from, along, number: ++this.number }, places ? [places.buffer] : []);
  }

  /** Put the Gaussians of all visible tiles into a new texture; returns their places. */
  #layOut() {
    this.stale = false;
    const parts = [];
    for (const tile of this.tiles.visibleTiles) {
      const part = this.parts.get(tile.engineData?.scene);
      if (part?.length) parts.push(part);
    }
    const count = parts.reduce((sum, part) => sum + part.length, 0) / WORDS;
    const rows = Math.max(Math.ceil(count / ROW), 1);
    const words = new Uint32Array(rows * ROW * WORDS);
    let at = 0;
    for (const part of parts) {
      words.set(part, at);
      at += part.length;
    }
    const floats = new Float32Array(words.buffer);
    const places = new Float32Array(3 * count);
    for (let i = 0; i < count; i++) {
      for (let axis = 0; axis < 3; axis++) places[3 * i + axis] = floats[WORDS * i + axis];
    }
    const texture = new DataTexture(words, 2 * ROW, rows, RGBAIntegerFormat, UnsignedIntType);
    texture.internalFormat = 'RGBA32UI';
    texture.minFilter = texture.magFilter = NearestFilter;
    texture.needsUpdate = true;
    this.next = texture;
    this.count = count;
    const { tiles } = this;
    if (count > this.most) tiles.errorTarget *= COARSER;
    else if (count < this.most / 4) tiles.errorTarget = Math.max(tiles.errorTarget / COARSER, this.base);
    return places;
  }

  /** Draw in an order that the worker has found. */
  #take({ order, number }) {
    if (number !== this.number) return;
    this.busy = false;
    const { geometry, material } = this.mesh;
    if (this.next) {
      material.uniforms.gaussians.value?.dispose();
      material.uniforms.gaussians.value = this.next;
      this.next = null;
    }
    const attribute = geometry.getAttribute('order');
    if (!attribute || attribute.count < order.length) {
      geometry.dispose(); // its buffers
      const fresh = new InstancedBufferAttribute(new Uint32Array(Math.ceil(order.length * 1.3) + 1), 1);
      fresh.gpuType = IntType;
      fresh.setUsage(DynamicDrawUsage);
      fresh.array.set(order);
      geometry.setAttribute('order', fresh);
    } else {
      attribute.array.set(order);
      attribute.clearUpdateRanges();
      attribute.addUpdateRange(0, order.length);
      attribute.needsUpdate = true;
    }
    geometry.instanceCount = order.length;
    this.onChange();
  }
}
