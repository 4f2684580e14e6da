// The canvas: one or two worlds under one camera and one sun, drawn when something has changed.
import {
  BufferGeometry, Color, DirectionalLight, Group, HemisphereLight, Mesh, PCFShadowMap,
  PerspectiveCamera, Raycaster, Scene, ShaderMaterial, Vector2, Vector3, WebGLRenderer,
  Float32BufferAttribute, MathUtils,
} from 'three';
import { EnvironmentControls } from '3d-tiles-renderer/three';

import { LocalFrame, direction, sunAt } from './geo.js';
import { FEATURE, Materials } from './material.js';
import { SplatTiles } from './splats.js';
import { MeshTiles } from './tiles.js';

const SKY = {
  light: { top: '#7fb2e0', bottom: '#eef4f8', ground: '#cfd6d8' },
  dark: { top: '#05080f', bottom: '#1b2a3c', ground: '#0a0f16' },
};
const IDLE = 1500; // milliseconds after an input in which the controls may still move
const LONG_AGO = -1e9;

/** A full-screen triangle with the colours of the sky by the direction of view. */
function makeSky() {
  const geometry = new BufferGeometry();
  geometry.setAttribute('position', new Float32BufferAttribute([-1, -1, 0, 3, -1, 0, -1, 3, 0], 3));
  const material = new ShaderMaterial({
    depthTest: false,
    depthWrite: false,
    uniforms: {
      top: { value: new Color() }, bottom: { value: new Color() }, ground: { value: new Color() },
      sun: { value: new Vector3(0, 1, 0) }, glow: { value: new Color() },
    },
    vertexShader: `
      varying vec3 vRay;
      void main() {
        vec4 far = inverse(projectionMatrix) * vec4(position.xy, 1.0, 1.0);
        vRay = mat3(inverse(viewMatrix)) * (far.xyz / far.w);
        gl_Position = vec4(position.xy, 1.0, 1.0);
      }`,
    fragmentShader: `
      varying vec3 vRay;
      uniform vec3 top, bottom, ground, sun, glow;
      void main() {
        vec3 ray = normalize(vRay);
        vec3 colour = ray.y > 0.0
          ? mix(bottom, top, pow(ray.y, 0.55))
          : mix(bottom, ground, clamp(pow(-ray.y, 0.4) * 1.2, 0.0, 1.0));
        float near = max(dot(ray, sun), 0.0);
        colour += glow * (0.25 * pow(near, 8.0) + 0.9 * smoothstep(0.9996, 0.9999, near))
          * step(0.0, ray.y);
        gl_FragColor = vec4(colour, 1.0);
        #include <colorspace_fragment>
      }`,
  });
  const mesh = new Mesh(geometry, material);
  mesh.frustumCulled = false;
  mesh.renderOrder = -1;
  mesh.raycast = () => {};
  return mesh;
}

/** One world in a scene of its own. */
class Side {
  constructor(world, frame, base, slow, onChange) {
    this.world = world;
    this.materials = new Materials(world, base);
    this.tiles = new MeshTiles(world, frame, this.materials, slow, onChange);
    this.splats = null; // asked for with the first look at them
    this.layer = '';
    this.makeSplats = () =>
      new SplatTiles(world, world.splats, frame, this.materials, slow, onChange);
    this.scene = new Scene();
    this.sky = makeSky();
    this.sun = new DirectionalLight();
    this.ambient = new HemisphereLight();
    this.marks = new Group();
    this.scene.add(this.sky, this.tiles.group, this.sun, this.sun.target, this.ambient, this.marks);
    this.sun.shadow.mapSize.set(2048, 2048);
    this.sun.shadow.bias = -0.0006;
    this.sun.shadow.normalBias = 0.6;
    this.sun.shadow.intensity = 0.85;
  }

  show(layer) {
    this.layer = layer;
    this.materials.show(layer);
    if (layer === 'splats' && this.world.splats && !this.splats) {
      this.splats = this.makeSplats();
      this.scene.add(this.splats.mesh);
    }
  }

  /** The tiles that are needed. Meshes stay: they say what is under the pointer. */
  get shown() {
    return this.layer === 'splats' && this.splats ? [this.tiles, this.splats] : [this.tiles];
  }

  /** Meshes are drawn until there are Gaussians. */
  choose() {
    const splats = this.shown.length > 1 && this.splats.ready;
    this.tiles.group.visible = !splats;
    if (this.splats) this.splats.mesh.visible = splats;
  }
}

export class View {
  constructor(canvas, scene) {
    this.canvas = canvas;
    this.frame = new LocalFrame(scene.origin);
    this.origin = scene.origin;
    this.renderer = new WebGLRenderer({ canvas, antialias: true, powerPreference: 'high-performance' });
    this.renderer.shadowMap.type = PCFShadowMap;
    this.renderer.autoClear = false;
    this.renderer.info.autoReset = false;
    this.slow = isSoftware(this.renderer);
    this.renderer.setPixelRatio(this.slow ? 1 : Math.min(window.devicePixelRatio, 2));
    this.camera = new PerspectiveCamera(40, 1, 1, 1e5);
    this.sides = scene.worlds.map((world) => new Side(world, this.frame, this.origin.height, this.slow, () => this.touch()));
    this.radius = Math.max(...scene.worlds.map((world) => world.radius));
    this.split = 0.5;
    // Pixels of the canvas on each side that cards lie on.
    this.covered = { left: 0, right: 0, top: 0, bottom: 0 };
    this.listeners = { frame: [], settled: [] };
    this.raycaster = new Raycaster();
    this.raycaster.firstHitOnly = true;
    this.hidden = new Set();
    this.moved = LONG_AGO;
    this.dirty = true;
    this.settled = false;
    this.flight = null;

    this.controls = new EnvironmentControls(this.sides[0].scene, this.camera, canvas);
    this.controls.enableDamping = true;
    this.controls.cameraRadius = 3;
    this.controls.minDistance = 8;
    this.controls.maxDistance = this.radius * 6;
    this.controls.minAltitude = 0.01; // the camera never looks up from below
    this.controls.maxAltitude = Math.PI / 2 - 0.001;
    // Beside the world, the pointer takes hold of the plane of its lowest height.
    this.controls.fallbackPlane.constant = this.origin.height - scene.worlds[0].heights[0];
    this.controls.pivotMesh.visible = false;
    const wake = () => {
      this.moved = performance.now();
    };
    for (const name of ['pointerdown', 'wheel', 'pointerup']) {
      canvas.addEventListener(name, wake, { capture: true, passive: true });
    }
    canvas.addEventListener('pointerdown', (event) => {
      this.flight = null;
      this.controls.setScene(this.sideAt(event.clientX).scene);
    }, { capture: true });
    canvas.addEventListener('wheel', (event) => {
      this.flight = null;
      this.controls.setScene(this.sideAt(event.clientX).scene);
    }, { capture: true, passive: true });
    this.controls.addEventListener('change', () => {
      wake();
      this.touch();
    });
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener('webglcontextlost', (event) => event.preventDefault());
    canvas.addEventListener('webglcontextrestored', () => this.touch());
    this.setTheme('light');
    this.setSun({ day: 172, hour: 13.5 }); // on the sides that the first view shows
    this.setShadows(!this.slow);
    this.resize();
    this.home(false);
    this.renderer.setAnimationLoop(() => this.tick());
  }

  on(event, listener) {
    this.listeners[event].push(listener);
  }

  touch() {
    this.dirty = true;
    this.settled = false;
  }

  resize() {
    const { clientWidth: width, clientHeight: height } = this.canvas;
    if (!width || !height) return;
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
    this.touch();
  }

  /** The side of the slider that a column of the window lies on. */
  sideAt(clientX) {
    if (this.sides.length === 1) return this.sides[0];
    const { left, width } = this.canvas.getBoundingClientRect();
    return this.sides[clientX - left < this.split * width ? 0 : 1];
  }

  setTheme(theme) {
    this.theme = theme;
    for (const { sky } of this.sides) {
      for (const name of ['top', 'bottom', 'ground']) {
        sky.material.uniforms[name].value.set(SKY[theme][name]);
      }
    }
    this.touch();
  }

  setSun({ day, hour }) {
    this.sunTime = { day, hour };
    const sun = sunAt(this.origin.lat, day, hour);
    this.sunNow = sun;
    // Below the horizon a moon stands where it lights the relief from the side.
    const night = sun.elevation <= 0;
    const shown = night ? { azimuth: 315, elevation: 45 } : sun;
    this.sunDirection = direction({ ...shown, elevation: Math.max(shown.elevation, 3) });
    const low = MathUtils.smoothstep(sun.elevation, 0, 25);
    const colour = night
      ? new Color('#9db4d8') : new Color('#ff9a4d').lerp(new Color('#fff4e2'), low);
    // Colours that a legend explains are shown in white light, whatever the hour.
    const plain = this.layer !== undefined && !['colour', 'splats'].includes(this.layer);
    for (const side of this.sides) {
      side.sun.color.copy(plain ? new Color('#ffffff') : colour);
      side.sun.intensity = plain ? 2 : night ? 0.7 : 1.6 + 1.9 * low;
      side.ambient.intensity = plain ? 1.9 : night ? 0.7 : 1.3 + 0.5 * low;
      side.ambient.color.set(plain ? '#ffffff' : night ? '#7d92b8' : '#dcebff');
      side.ambient.groundColor.set(plain ? '#d8d8d8' : night ? '#202430' : '#9a9182');
      side.sky.material.uniforms.sun.value.copy(this.sunDirection);
      side.sky.material.uniforms.glow.value.copy(colour).multiplyScalar(night ? 0 : 0.8);
    }
    this.touch();
  }

  setShadows(on) {
    this.shadows = on;
    this.renderer.shadowMap.enabled = on;
    for (const side of this.sides) side.sun.castShadow = on;
    this.touch();
  }

  setLayer(layer) {
    this.layer = layer;
    for (const side of this.sides) side.show(layer);
    this.setSun(this.sunTime);
  }

  hide(codes) {
    this.hidden = new Set(codes);
    for (const side of this.sides) side.materials.hide(this.hidden);
    this.raycaster.firstHitOnly = this.hidden.size === 0;
    this.touch();
  }

  choose(side, object) {
    for (const each of this.sides) each.materials.choose(each === side ? object : 0);
    this.touch();
  }

  setSplit(fraction) {
    this.split = MathUtils.clamp(fraction, 0.02, 0.98);
    this.touch();
  }

  /** The point of the world in the middle of the canvas, or where the view meets its lowest height. */
  focus(target = new Vector3()) {
    this.raycaster.setFromCamera(new Vector2(0, 0), this.camera);
    const hits = this.raycaster.intersectObject(this.sides[0].tiles.tiles.group, true);
    if (hits.length) return target.copy(hits[0].point);
    if (this.raycaster.ray.intersectPlane(this.controls.fallbackPlane, target)) {
      if (target.distanceTo(this.camera.position) < 20 * this.radius) return target;
    }
    return this.raycaster.ray.at(this.radius, target);
  }

  /** Degrees clockwise from north, and below the horizon. */
  get heading() {
    const forward = this.camera.getWorldDirection(new Vector3());
    const up = new Vector3(0, 1, 0).applyQuaternion(this.camera.quaternion);
    const flat = Math.abs(forward.y) > 0.999 ? up : forward;
    return (Math.atan2(flat.x, -flat.z) * MathUtils.RAD2DEG + 360) % 360;
  }

  get tilt() {
    return Math.asin(MathUtils.clamp(-this.camera.getWorldDirection(new Vector3()).y, -1, 1)) *
      MathUtils.RAD2DEG;
  }

  /** What the camera is: longitude, latitude, height, heading and tilt. */
  get pose() {
    return { ...this.frame.lonLat(this.camera.position), heading: this.heading, tilt: this.tilt };
  }

  set pose({ lon, lat, height, heading, tilt }) {
    this.flight = null;
    this.frame.position({ lon, lat, height }, this.camera.position);
    this.#aim(heading, tilt);
  }

  #aim(heading, tilt) {
    this.camera.rotation.order = 'YXZ';
    this.camera.rotation.set(-tilt * MathUtils.DEG2RAD, -heading * MathUtils.DEG2RAD, 0);
    this.camera.updateMatrixWorld();
    this.controls._upInitialized = false;
    this.touch();
  }

  /** Look at a point from a distance, heading and tilt; `smooth` flies there. */
  lookAt(point, distance, heading, tilt, smooth = true) {
    const from = smooth && !this.slow ? {
      position: this.camera.position.clone(), heading: this.heading, tilt: this.tilt,
    } : null;
    const back = direction({ azimuth: heading + 180, elevation: tilt });
    const to = { position: point.clone().addScaledVector(back, distance), heading, tilt };
    if (from) {
      let turn = (heading - from.heading) % 360;
      if (turn > 180) turn -= 360;
      if (turn < -180) turn += 360;
      this.flight = { from, to: { ...to, heading: from.heading + turn }, start: performance.now() };
    } else {
      this.flight = null;
      this.camera.position.copy(to.position);
      this.#aim(heading, tilt);
    }
    this.touch();
  }

  /** The whole world, obliquely from the south: all of its corners, in what no card lies on. */
  home(smooth = true, heading = 0, tilt = 38) {
    const { world } = this.sides[0];
    const middle = this.frame.position(world.middle);
    const forward = direction({ azimuth: heading, elevation: -tilt });
    const right = direction({ azimuth: heading + 90, elevation: 0 });
    const up = new Vector3().crossVectors(right, forward);
    const corners = cornersOf(world).map((place) => {
      const aside = this.frame.position(place).sub(middle);
      return { x: aside.dot(right), y: aside.dot(up), z: aside.dot(forward) };
    });
    const { clientWidth, clientHeight } = this.canvas;
    const { left, right: east, top, bottom } = this.covered;
    const width = Math.max(clientWidth, 1);
    const height = Math.max(clientHeight, 1);
    const tall = Math.tan(this.camera.fov * MathUtils.DEG2RAD / 2);
    const wide = tall * width / height;
    const free = {
      x: freePart(left, east, width, wide), y: freePart(bottom, top, height, tall),
    };
    // Where the middle of the view may lie beside the world's for a corner to be seen.
    const range = (axis, distance) => [
      Math.max(...corners.map((c) => c[axis] - free[axis][1] * (c.z + distance))),
      Math.min(...corners.map((c) => c[axis] - free[axis][0] * (c.z + distance))),
    ];
    const fits = (distance) => corners.every((c) => c.z + distance > 0) &&
      ['x', 'y'].every((axis) => range(axis, distance)[0] <= range(axis, distance)[1]);
    let [near, far] = [0, world.radius];
    while (!fits(far) && far < 100 * world.radius) [near, far] = [far, 2 * far];
    for (let i = 0; i < 30; i++) {
      const half = (near + far) / 2;
      if (fits(half)) far = half;
      else near = half;
    }
    const [x, y] = ['x', 'y'].map((axis) => {
      const [low, high] = range(axis, far);
      return (low + high) / 2;
    });
    this.lookAt(
      middle.addScaledVector(right, x).addScaledVector(up, y), far, heading, tilt, smooth,
    );
  }

  /** Turn about the middle of the view to a heading and tilt. */
  turn(heading, tilt, smooth = true) {
    const focus = this.focus();
    this.lookAt(focus, focus.distanceTo(this.camera.position), heading, tilt, smooth);
  }

  /** Move by fractions of the distance: right, forwards over the ground, and nearer. */
  step(right, forwards, nearer) {
    const focus = this.focus();
    const distance = focus.distanceTo(this.camera.position);
    const h = this.heading * MathUtils.DEG2RAD;
    const shift = new Vector3(
      Math.cos(h) * right + Math.sin(h) * forwards, 0, Math.sin(h) * right - Math.cos(h) * forwards,
    ).multiplyScalar(distance);
    this.lookAt(focus.add(shift), distance * (1 - nearer), this.heading, this.tilt);
  }

  #fly(now) {
    const { from, to, start } = this.flight;
    const t = Math.min((now - start) / 450, 1);
    const s = t * t * (3 - 2 * t);
    this.camera.position.lerpVectors(from.position, to.position, s);
    this.#aim(MathUtils.lerp(from.heading, to.heading, s), MathUtils.lerp(from.tilt, to.tilt, s));
    if (t === 1) this.flight = null;
  }

  tick() {
    const now = performance.now();
    if (this.flight) this.#fly(now);
    else if (now - this.moved < IDLE || this.controls.state !== 0) this.controls.update();
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const ratio = this.renderer.getPixelRatio();
    this.#clip();
    this.camera.updateMatrixWorld();
    for (const tiles of this.sides.flatMap((side) => side.shown)) {
      tiles.update(this.camera, Math.floor(width * ratio), Math.floor(height * ratio));
    }
    if (this.dirty) {
      this.dirty = false;
      this.draw();
      for (const listener of this.listeners.frame) listener();
    }
    const settled = !this.dirty && !this.flight &&
      this.sides.every((side) => side.shown.every((tiles) => tiles.settled));
    if (settled && !this.settled) {
      this.settled = true;
      for (const listener of this.listeners.settled) listener();
    }
  }

  /** Near and far planes around the worlds: a depth buffer of 24 bits then suffices everywhere. */
  #clip() {
    const { world } = this.sides[0];
    const distance = this.frame.position(world.middle).distanceTo(this.camera.position);
    this.camera.near = Math.max(distance - 2 * this.radius, 0.002 * Math.min(distance, this.radius), 0.5);
    this.camera.far = distance + 2.5 * this.radius;
    this.camera.updateProjectionMatrix();
  }

  draw() {
    const size = this.renderer.getSize(new Vector2());
    this.renderer.info.reset();
    this.renderer.setScissorTest(false);
    this.renderer.clear();
    if (this.shadows) this.#aimShadow();
    const cut = Math.round(this.split * size.x);
    this.sides.forEach((side, index) => {
      side.choose();
      if (this.sides.length > 1) {
        this.renderer.setScissorTest(true);
        this.renderer.setScissor(index ? cut : 0, 0, index ? size.x - cut : cut, size.y);
      }
      this.renderer.render(side.scene, this.camera);
    });
    this.renderer.setScissorTest(false);
  }

  /** Spend the shadow map on what is seen: a ball around the middle of the view. */
  #aimShadow() {
    const focus = this.focus();
    const distance = focus.distanceTo(this.camera.position);
    const reach = MathUtils.clamp(distance * 0.9, 60, this.radius * 1.1);
    for (const { sun } of this.sides) {
      const { camera, mapSize } = sun.shadow;
      sun.target.position.copy(focus);
      sun.position.copy(focus).addScaledVector(this.sunDirection, reach + 600);
      Object.assign(camera, {
        left: -reach, right: reach, top: reach, bottom: -reach, near: 1, far: 2 * reach + 1200,
      });
      camera.updateProjectionMatrix();
      sun.shadow.normalBias = 1.5 * reach / mapSize.x;
      sun.target.updateMatrixWorld();
    }
  }

  /**
   * What lies under a point of the window: the world, the place in the scene, longitude, latitude,
   * height, class code and object; null where there is nothing.
   */
  pick(clientX, clientY) {
    const box = this.canvas.getBoundingClientRect();
    const pointer = new Vector2(
      ((clientX - box.left) / box.width) * 2 - 1, 1 - ((clientY - box.top) / box.height) * 2,
    );
    const side = this.sideAt(clientX);
    this.raycaster.setFromCamera(pointer, this.camera);
    const hits = this.raycaster.intersectObject(side.tiles.tiles.group, true);
    for (const hit of hits) {
      const { code, object, row } = featureOf(hit);
      if (this.hidden.has(code)) continue;
      return { side, point: hit.point.clone(), ...this.frame.lonLat(hit.point), code, object, row };
    }
    return null;
  }
}

/** Class code, object number and the row of the table of what a ray has hit. */
function featureOf({ object: mesh, face, uv }) {
  const { ground, rows } = mesh.userData;
  if (ground) {
    const column = MathUtils.clamp(Math.floor(uv.x * ground.width), 0, ground.width - 1);
    const line = MathUtils.clamp(Math.floor(uv.y * ground.height), 0, ground.height - 1);
    return { code: ground.codes[line * ground.width + column], object: 0, row: {} };
  }
  const feature = mesh.geometry.getAttribute(FEATURE);
  if (!feature || !face) return { code: 0, object: 0, row: {} };
  // Vertices of one triangle belong to one feature, or its last one stands for it, as drawn.
  const object = feature.getY(face.c) + 65536 * feature.getZ(face.c);
  return { code: feature.getX(face.c), object, row: rows?.get(object) ?? {} };
}

/** Longitude, latitude and height of the eight corners of a world. */
function cornersOf({ projection: { centre, scale }, heights }) {
  const corners = [];
  for (const east of [-1, 1]) {
    for (const north of [-1, 1]) {
      for (const height of heights) {
        corners.push({ lon: centre[0] + east * scale[0], lat: centre[1] + north * scale[1], height });
      }
    }
  }
  return corners;
}

/**
 * The part of an axis of the canvas that cards leave free, as tangents of the angle from its middle;
 * at least a third of it. `before` and `after` are pixels of its beginning and its end.
 */
function freePart(before, after, pixels, tangent) {
  const most = 2 * pixels / 3;
  const cut = Math.min(1, most / Math.max(before + after, 1));
  return [(2 * before * cut / pixels - 1) * tangent, (1 - 2 * after * cut / pixels) * tangent];
}

function isSoftware(renderer) {
  const gl = renderer.getContext();
  const info = gl.getExtension('WEBGL_debug_renderer_info');
  const name = info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : '';
  return /swiftshader|llvmpipe|software|basic render/i.test(String(name));
}
