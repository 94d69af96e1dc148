//! A person before a camera, drawn from one photograph by bending it: no video of a person may be kept for tests.

use face::*;
use std::path::{Path, PathBuf};

/// The folder of photographs, where it is there.
pub fn photographs() -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/faces");
    if folder.join("p1_a.jpg").exists() {
        return Some(folder);
    }
    eprintln!("skipped: ../shared/faces is absent");
    None
}

/// A photograph.
pub fn read(folder: &Path, name: &str) -> Picture {
    Picture::decode(&std::fs::read(folder.join(format!("{name}.jpg"))).unwrap()).unwrap()
}

/// A picture as a file.
pub fn png(picture: &Picture) -> Vec<u8> {
    let (w, h) = (picture.width(), picture.height());
    let rgb: Vec<u8> = (0..w * h).flat_map(|i| picture.pixel((i % w) as isize, (i / w) as isize)).collect();
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, w as u32, h as u32);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::Fast);
    encoder.write_header().unwrap().write_image_data(&rgb).unwrap();
    bytes
}

/// The picture whose pixel at a point is the original's at `from` of that point, with a little noise as cameras have.
pub fn bent(picture: &Picture, noise: u8, from: impl Fn(f32, f32) -> (f32, f32)) -> Picture {
    let (w, h) = (picture.width(), picture.height());
    let mut rgb = Vec::with_capacity(w * h * 3);
    for y in 0..h {
        for x in 0..w {
            let (sx, sy) = from(x as f32, y as f32);
            let sx = sx.clamp(0.0, w as f32 - 1.0) as isize;
            let sy = sy.clamp(0.0, h as f32 - 1.0) as isize;
            let grain = ((x * 7 + y * 13) as u8 ^ noise.wrapping_mul(37)) % 5;
            rgb.extend(picture.pixel(sx, sy).map(|v| v.saturating_add(grain)));
        }
    }
    Picture::of_rgb(w, h, rgb).unwrap()
}

/// The middle of a photograph, made smaller, so that a test takes seconds.
fn smaller(picture: &Picture, face: &Face, width: usize) -> Picture {
    let [left, top, w, _] = face.area;
    let (side, left, top) = (w * 2.4, left - w * 0.7, top - w * 0.7);
    let scale = side / width as f32;
    let mut rgb = Vec::new();
    for y in 0..width {
        for x in 0..width {
            let at = |v: usize, start: f32| (start + (v as f32 + 0.5) * scale) as isize;
            rgb.extend(picture.pixel(at(x, left), at(y, top)));
        }
    }
    Picture::of_rgb(width, width, rgb).unwrap()
}

/// A person before a camera, drawn from one photograph.
pub struct Actor {
    pub picture: Picture,
    pub face: Face,
    eyes: f32,
}

impl Actor {
    pub fn new(model: &Networks, folder: &Path, name: &str) -> Self {
        let (picture, face, _) = upright(model, read(folder, name)).unwrap();
        let picture = smaller(&picture, &face, 640);
        let face = model.faces(&picture).unwrap().remove(0);
        let eyes = Measures::of(&face).eyes;
        Self { picture, face, eyes }
    }

    /// The head turned about its upright axis: a face that stands out in the middle, with a nose on it.
    fn turned(&self, degrees: f32, noise: u8) -> Picture {
        let p = &self.face.landmarks;
        let ((nx, ny), eyes) = (p[30], self.eyes);
        let between = ((p[36].0 + p[45].0) / 2.0, (p[36].1 + p[45].1) / 2.0);
        let bump = |x: f32, y: f32, wide: f32, high: f32| {
            (-(x / (wide * eyes)).powi(2) - (y / (high * eyes)).powi(2)).exp()
        };
        let depth = |x: f32, y: f32| {
            let nose = 0.55 * bump(x - nx, y - ny, 0.3, 0.45);
            eyes * (nose + 0.8 * bump(x - between.0, y - between.1 - 0.4 * eyes, 1.15, 1.6) - 0.6)
        };
        let (sin, cos) = degrees.to_radians().sin_cos();
        bent(&self.picture, noise, |to, y| {
            let mut x = to;
            for _ in 0..12 {
                x = (x + between.0 + (to - between.0 - depth(x, y) * sin) / cos) / 2.0;
            }
            (x, y)
        })
    }

    fn open_mouth(&self, noise: u8) -> Picture {
        let (upper, lower) = (self.face.landmarks[62], self.face.landmarks[66]);
        let (mx, my) = ((upper.0 + lower.0) / 2.0, (upper.1 + lower.1) / 2.0);
        let (eyes, by) = (self.eyes, 0.35);
        let bent = bent(&self.picture, noise, |x, y| {
            let beside = (-((x - mx) / (0.5 * eyes)).powi(2)).exp();
            let below = ((y - my) / (0.15 * eyes)).clamp(0.0, 1.0);
            let fades = (-((y - my - 0.9 * eyes) / (0.5 * eyes)).max(0.0).powi(2)).exp();
            (x, y - by * eyes * beside * below * fades)
        });
        let (w, h) = (bent.width(), bent.height());
        let pixel = |i: usize| {
            let (x, y) = ((i % w) as f32, (i / w) as f32);
            let inside =
                ((x - mx) / (0.3 * eyes)).powi(2) + ((y - my - by * eyes / 2.0) / (by * eyes * 0.55)).powi(2);
            if inside < 1.0 { [40, 15, 15] } else { bent.pixel(x as isize, y as isize) }
        };
        Picture::of_rgb(w, h, (0..w * h).flat_map(pixel).collect()).unwrap()
    }

    /// A flat photograph turned about its upright axis, close to the camera.
    #[allow(dead_code, reason = "not every test does")]
    pub fn turned_flat(&self, degrees: f32, noise: u8) -> Picture {
        let ((nx, ny), far) = (self.face.landmarks[30], 8.0 * self.eyes);
        let (sin, cos) = degrees.to_radians().sin_cos();
        bent(&self.picture, noise, |x, y| {
            let u = (x - nx) * far / (far * cos + (x - nx) * sin);
            (nx + u, ny + (y - ny) * (far - u * sin) / far)
        })
    }

    pub fn shows(&self, pose: Pose, noise: u8) -> Picture {
        match pose {
            Pose::Straight => bent(&self.picture, noise, |x, y| (x, y)),
            Pose::TurnLeft => self.turned(30.0, noise),
            Pose::TurnRight => self.turned(-30.0, noise),
            Pose::OpenMouth => self.open_mouth(noise),
        }
    }
}
