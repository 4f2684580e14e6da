// The 3D Tiles of one world, drawn in the scene's frame with the page's own material.
import { Group, Uint16BufferAttribute } from 'three';
import { TilesRenderer } from '3d-tiles-renderer/three';
import { GLTFExtensionsPlugin } from '3d-tiles-renderer/src/three/plugins/GLTFExtensionsPlugin.js';
import { ImplicitTilingPlugin } from '3d-tiles-renderer/src/core/plugins/ImplicitTilingPlugin.js';
import { MeshoptDecoder } from 'meshoptimizer';

import { gunzip } from './gaussians.js';
import { FEATURE } from './material.js';

/** Where the files of a one-file page pretend to be. No request goes there: `Embedded` answers. */
const EMBEDDED = 'https://embedded.invalid/';

/** Pixels of error at which finer tiles are asked for; a software renderer gets coarser ones. */
const DETAIL = { hardware: 8, software: 16 };

const unpack = (text) => gunzip(Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)));

/** A plugin of TilesRenderer that reads files from the page: gzip in base64, by path. */
class Embedded {
  constructor(files) {
    this.name = 'EARTHGEN_EMBEDDED';
    this.priority = -1000;
    this.files = files;
  }

  fetchData(url) {
    if (!url.startsWith(EMBEDDED)) return null;
    const path = decodeURIComponent(new URL(url).pathname.slice(1));
    const element = document.getElementById(`file:${path}`);
    if (!element) return Promise.reject(new Error(`the page does not contain ${path}`));
    return unpack(element.textContent).then((bytes) =>
      /\.json$/.test(path) ? JSON.parse(new TextDecoder().decode(bytes)) : bytes);
  }
}

/**
 * What a mesh shows, from its feature ids and their table (EXT_mesh_features,
 * EXT_structural_metadata): class and object of each vertex as one attribute of four uint16
 * (class, object low, object high, 0); or, where the ids are a texture, the classes of its texels
 * as `mesh.userData.ground`. The rows of the table that were read stay in `mesh.userData.rows`.
 */
function describe(mesh, root) {
  const { geometry } = mesh;
  const features = mesh.userData.meshFeatures;
  const metadata = mesh.userData.structuralMetadata ?? root.userData.structuralMetadata;
  const count = geometry.getAttribute('position').count;
  const values = new Uint16Array(4 * count);
  mesh.userData.rows = new Map();
  for (const set of features?.getFeatureInfo() ?? []) {
    const table = Number.isInteger(set.propertyTable)
      ? metadata?.tableAccessors[set.propertyTable] : null;
    const rows = new Map();
    const rowOf = (id) => {
      if (!rows.has(id)) rows.set(id, readRow(table, id, set, metadata));
      return rows.get(id);
    };
    const ids = Number.isInteger(set.attribute)
      ? geometry.getAttribute(`_feature_id_${set.attribute}`) : null;
    if (ids) {
      for (let i = 0; i < count; i++) {
        const row = rowOf(ids.getX(i));
        values[4 * i] = row.class ?? 0;
        values[4 * i + 1] = (row.object ?? 0) & 0xffff;
        values[4 * i + 2] = (row.object ?? 0) >>> 16;
      }
      for (const row of rows.values()) if (row.object) mesh.userData.rows.set(row.object, row);
    } else if (set.texture) {
      const { image } = features.getTextures()[set.texture.index];
      mesh.userData.ground = readGrid(image, set.texture.channels, (id) => rowOf(id).class ?? 0);
    }
  }
  if (!mesh.userData.ground) geometry.setAttribute(FEATURE, new Uint16BufferAttribute(values, 4));
}

/** The classes of the texels of a picture of feature ids. */
function readGrid(image, channels, classOf) {
  const { width, height } = image;
  const canvas = new OffscreenCanvas(width, height);
  const pen = canvas.getContext('2d', { willReadFrequently: true });
  pen.drawImage(image, 0, 0);
  const { data } = pen.getImageData(0, 0, width, height);
  const codes = new Uint8Array(width * height);
  for (let i = 0; i < codes.length; i++) {
    let id = 0;
    channels.forEach((channel, place) => { id += data[4 * i + channel] * 256 ** place; });
    codes[i] = classOf(id);
  }
  return { width, height, codes };
}

function readRow(table, id, set, metadata) {
  if (id === set.nullFeatureId) return {};
  if (!table) return /class/i.test(set.label ?? '') ? { class: id } : {};
  const row = {};
  for (const [name, value] of Object.entries(table.getData(id, {}))) {
    if (/^(class|class_code|semantic)$/i.test(name)) {
      const number = codeOf(value, metadata);
      if (number !== undefined) row.class = number;
    } else if (/^object(_?id)?$/i.test(name)) row.object = Number(value) || 0;
    else if (/^height$/i.test(name)) row.height = Number(value) || 0;
  }
  return row;
}

/** A class code, which the table may hold as a number or as the name of an enumeration's value. */
function codeOf(value, metadata) {
  if (Number.isFinite(Number(value))) return Number(value);
  for (const { values } of Object.values(metadata?.schema?.enums ?? {})) {
    const found = values.find((one) => one.name === value);
    if (found) return found.value;
  }
  return undefined;
}

/** A tileset. `group` goes into a scene; `onChange` is called when it looks different. */
export class TileSet {
  constructor(address, frame, loaders, onChange) {
    this.group = new Group();
    this.group.matrixAutoUpdate = false;
    this.group.matrix.copy(frame.fromEcef);
    this.failed = [];
    this.onChange = onChange;
    const embedded = address.startsWith('embedded:');
    const url = embedded
      ? EMBEDDED + address.slice('embedded:'.length)
      : new URL(address, document.baseURI).href;
    const tiles = new TilesRenderer(url);
    this.tiles = tiles;
    if (embedded) tiles.registerPlugin(new Embedded());
    tiles.registerPlugin(new ImplicitTilingPlugin());
    tiles.registerPlugin(new GLTFExtensionsPlugin({
      metadata: true, rtc: false, meshoptDecoder: MeshoptDecoder, autoDispose: false,
      plugins: loaders,
    }));
    tiles.addEventListener('load-error', ({ error, url: where }) => {
      this.failed.push(`${where}: ${error?.message ?? error}`);
      onChange();
    });
    for (const event of ['load-model', 'needs-update', 'tile-visibility-change', 'tiles-load-end',
      'load-root-tileset']) {
      tiles.addEventListener(event, onChange);
    }
    this.group.add(tiles.group);
    this.group.updateMatrixWorld(true);
  }

  /** Ask for the tiles that a camera needs on a canvas of `width` x `height` pixels. */
  update(camera, width, height) {
    this.tiles.setCamera(camera);
    this.tiles.setResolution(camera, width, height);
    this.tiles.update();
  }

  /** Whether everything that the view needs is there. */
  get settled() {
    const { stats } = this.tiles;
    return Boolean(this.tiles.root) &&
      stats.queued + stats.downloading + stats.parsing === 0 && this.tiles.loadProgress === 1;
  }
}

/** The meshes of one world, in the page's own material. */
export class MeshTiles extends TileSet {
  constructor(world, frame, materials, slow, onChange) {
    super(world.tileset, frame, [], onChange);
    this.tiles.errorTarget = slow ? DETAIL.software : DETAIL.hardware;
    this.tiles.addEventListener('load-model', ({ scene }) => {
      scene.traverse((mesh) => {
        if (!mesh.isMesh) return;
        describe(mesh, scene);
        materials.dress(mesh);
      });
    });
    this.tiles.addEventListener('dispose-model', ({ scene }) => {
      scene.traverse((mesh) => mesh.isMesh && materials.undress(mesh));
    });
  }

  /** Triangles and tiles that are drawn. */
  get drawn() {
    let triangles = 0;
    this.tiles.visibleTiles.forEach((tile) => {
      tile.engineData?.scene?.traverse((mesh) => {
        if (mesh.isMesh) triangles += (mesh.geometry.index?.count ?? 0) / 3;
      });
    });
    return { tiles: this.tiles.visibleTiles.size, triangles };
  }
}
