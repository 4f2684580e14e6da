// One lit material for all tiles: it shows the world's colours, its classes, heights or objects,
// hides classes and marks the chosen object, by uniforms that all tiles share.
import {
  Color, DataTexture, DoubleSide, FrontSide, MeshDepthMaterial, MeshLambertMaterial, RedFormat,
  RGBADepthPacking, Uint8BufferAttribute, Vector2, Vector3,
} from 'three';

/** Attribute (class, object low, object high, 0) of a vertex. */
export const FEATURE = 'earthgen_feature';
/** Splats are drawn without this material. */
export const LAYERS = ['colour', 'class', 'height', 'object', 'splats'];
export const CODES = 32; // length of the arrays by class code; there are 25 classes and 0

// EG_GROUND: the class comes from a texture, not from the vertices.
const HEAD_VERTEX = `
#ifndef EG_GROUND
attribute vec4 ${FEATURE};
flat varying vec3 vFeature;
#endif
varying vec3 vPlace;
`;
const PLACE_VERTEX = `
#ifndef EG_GROUND
vFeature = ${FEATURE}.xyz;
#endif
vPlace = (modelMatrix * vec4(transformed, 1.0)).xyz;
`;
const HIDE_HEAD = `
#ifdef EG_GROUND
uniform sampler2D egCodes;
#else
flat varying vec3 vFeature;
#endif
varying vec3 vPlace;
uniform float egShown[${CODES}];
`;
const HIDE = `
#ifdef EG_GROUND
int egClass = int(texture2D(egCodes, vMapUv).r * 255.0 + 0.5);
vec2 egObject = vec2(0.0);
#else
int egClass = int(vFeature.x + 0.5);
vec2 egObject = vFeature.yz;
#endif
if (egShown[min(egClass, ${CODES - 1})] < 0.5) discard;
`;
const LOOK_HEAD = `
uniform vec3 egClassColour[${CODES}];
uniform vec3 egRamp[6];
uniform vec2 egHeights;
uniform float egBase;
uniform float egDrop;
uniform int egLayer;
uniform vec2 egChosen;
uniform vec3 egMark;
vec3 egHue(float h) {
  return clamp(abs(mod(h * 6.0 + vec3(0.0, 4.0, 2.0), 6.0) - 3.0) - 1.0, 0.0, 1.0);
}
`;
// The scene's zero is at height egBase, and the earth falls away from its plane by d^2 / 2R; egDrop
// is 1 / 2R.
const LOOK = `
if (egLayer == 1) {
  diffuseColor.rgb = egClassColour[min(egClass, ${CODES - 1})];
} else if (egLayer == 2) {
  float up = egBase + vPlace.y + egDrop * dot(vPlace.xz, vPlace.xz);
  float t = clamp((up - egHeights.x) / (egHeights.y - egHeights.x), 0.0, 1.0) * 5.0;
  int i = int(min(floor(t), 4.0));
  diffuseColor.rgb = mix(egRamp[i], egRamp[i + 1], t - float(i));
  float line = abs(fract(up / 10.0 + 0.5) - 0.5) / max(fwidth(up / 10.0), 1e-6);
  diffuseColor.rgb *= mix(0.78, 1.0, clamp(line, 0.0, 1.0));
} else if (egLayer == 3) {
  vec2 id = egObject;
  if (id.x + id.y > 0.0) {
    float h = fract(id.x * 0.61803398875 + id.y * 0.7548776662);
    diffuseColor.rgb = mix(vec3(0.62), egHue(h), 0.55) * mix(0.75, 1.0, fract(h * 7.0));
    diffuseColor.rgb *= diffuseColor.rgb;
  } else {
    diffuseColor.rgb = vec3(dot(diffuseColor.rgb, vec3(0.3, 0.5, 0.2))) * 0.8 + 0.06;
  }
}
if (egChosen.x + egChosen.y > 0.0 && egObject == egChosen) {
  diffuseColor.rgb = mix(diffuseColor.rgb, egMark, 0.6);
}
`;

/** Viridis at six places (Smith, van der Walt and Firing 2015, CC0), sRGB. */
export const RAMP = ['#440154', '#414487', '#2a788e', '#22a884', '#7ad151', '#fde725'];

/** The materials of one world. */
export class Materials {
  constructor(world, base) {
    const colours = Array.from({ length: CODES }, () => new Vector3(0.25, 0.25, 0.25));
    for (const { code, color } of world.classes) {
      const { r, g, b } = new Color(color); // three's working space is linear
      colours[code].set(r, g, b);
    }
    this.uniforms = {
      egShown: { value: new Float32Array(CODES).fill(1) },
      egClassColour: { value: colours },
      egRamp: {
        value: RAMP.map((text) => {
          const { r, g, b } = new Color(text);
          return new Vector3(r, g, b);
        }),
      },
      egHeights: { value: new Vector2(...world.heights) },
      egBase: { value: base },
      egDrop: { value: 1 / (2 * 6371000) },
      egLayer: { value: 0 },
      egChosen: { value: new Vector2(0, 0) },
      egMark: { value: new Vector3(1, 0.33, 0.02) },
    };
    this.smooth = this.#lit({ vertexColors: true });
    this.flat = this.#lit({ vertexColors: true, flatShading: true });
    this.depth = this.#shadow();
  }

  #lit(settings, own = {}) {
    const material = new MeshLambertMaterial({ side: DoubleSide, ...settings });
    material.shadowSide = DoubleSide;
    const uniforms = { ...this.uniforms, ...own };
    material.onBeforeCompile = (shader) => {
      Object.assign(shader.uniforms, uniforms);
      shader.vertexShader = shader.vertexShader
        .replace('#include <common>', `#include <common>${HEAD_VERTEX}`)
        .replace('#include <begin_vertex>', `#include <begin_vertex>${PLACE_VERTEX}`);
      shader.fragmentShader = shader.fragmentShader
        .replace('#include <common>', `#include <common>${HIDE_HEAD}${LOOK_HEAD}`)
        .replace('#include <color_fragment>', `#include <color_fragment>${HIDE}${LOOK}`);
    };
    return material;
  }

  /** A material for a ground with a picture of its own, and classes by texel. */
  #ground({ width, height, codes }, map, flatShading) {
    const texture = new DataTexture(codes, width, height, RedFormat);
    texture.unpackAlignment = 1;
    texture.needsUpdate = true;
    // Skirts are seen from outside only: through a gap of less than a pixel, the inside is dark.
    const settings = { map, flatShading, side: FrontSide };
    const material = this.#lit(settings, { egCodes: { value: texture } });
    material.defines = { ...material.defines, EG_GROUND: '' };
    material.userData.codes = texture;
    return material;
  }

  #shadow() {
    const material = new MeshDepthMaterial({ depthPacking: RGBADepthPacking, side: DoubleSide });
    material.onBeforeCompile = (shader) => {
      shader.uniforms.egShown = this.uniforms.egShown;
      shader.vertexShader = shader.vertexShader
        .replace('#include <common>', `#include <common>${HEAD_VERTEX}`)
        .replace('#include <begin_vertex>', `#include <begin_vertex>${PLACE_VERTEX}`);
      shader.fragmentShader = shader.fragmentShader
        .replace('#include <common>', `#include <common>${HIDE_HEAD}`)
        .replace('#include <map_fragment>', `#include <map_fragment>${HIDE}`);
    };
    return material;
  }

  /** Give a mesh of a tile these materials. */
  dress(mesh) {
    const { geometry, material: { map } } = mesh;
    const flat = !geometry.getAttribute('normal');
    mesh.material.dispose();
    if (mesh.userData.ground && map) {
      mesh.material = this.#ground(mesh.userData.ground, map, flat);
    } else {
      if (!geometry.getAttribute('color')) {
        const { count } = geometry.getAttribute('position');
        geometry.setAttribute(
          'color', new Uint8BufferAttribute(new Uint8Array(3 * count).fill(180), 3, true),
        );
      }
      mesh.material = flat ? this.flat : this.smooth;
      mesh.customDepthMaterial = this.depth;
    }
    mesh.castShadow = true;
    mesh.receiveShadow = true;
  }

  /** Let go of what only this mesh has. */
  undress(mesh) {
    if (mesh.material === this.flat || mesh.material === this.smooth) return;
    mesh.material.userData.codes?.dispose();
    mesh.material.dispose();
  }

  show(layer) {
    this.uniforms.egLayer.value = Math.max(LAYERS.indexOf(layer), 0);
  }

  hide(codes) {
    this.uniforms.egShown.value.fill(1);
    for (const code of codes) this.uniforms.egShown.value[code] = 0;
  }

  choose(object) {
    this.uniforms.egChosen.value.set(object & 0xffff, object >>> 16);
  }
}
