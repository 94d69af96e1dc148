//! How a head is held, read off its landmarks.

use crate::{Face, Point};
use serde::{Deserialize, Serialize};

/// What a person is asked to do before the camera. Left and right are the person's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pose {
    /// Look straight at the camera, mouth closed.
    Straight,
    /// Turn the head to the left.
    TurnLeft,
    /// Turn the head to the right.
    TurnRight,
    /// Look straight and open the mouth.
    OpenMouth,
}

impl Pose {
    /// Its name in texts and JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Straight => "straight",
            Self::TurnLeft => "turn_left",
            Self::TurnRight => "turn_right",
            Self::OpenMouth => "open_mouth",
        }
    }
}

/// Measures of a face that do not depend on where it is, how large, or how it is tilted; lengths in distances between the eyes.
#[derive(Clone, Copy, Debug)]
pub struct Measures {
    /// How far the tip of the nose stands beside the middle of the eyes; positive where the person turned left.
    ///
    /// The tip stands about half an eye distance before the eyes, so a turn by an angle `a` moves it by about `0.5·tan a`. Turning or
    /// bending a flat photograph moves it with the eyes: a plane keeps the order and ratio of points along a line (in parallel
    /// projection exactly, at arm's length within some 0.03).
    pub yaw: f32,
    /// How far the inner lips are apart, in heights of the nose (from the line of the eyes down to its base).
    pub mouth: f32,
    /// The distance between the eyes in heights of the nose: a turn makes it smaller by its cosine.
    pub breadth: f32,
    /// The distance between the eyes, in pixels.
    pub eyes: f32,
    /// How far the line of the eyes is tilted, in degrees.
    pub tilt: f32,
}

/// Beside this far a face is no longer looking straight.
const STRAIGHT_MAX: f32 = 0.10;
/// A turn moves the nose at least so much from where it was when looking straight (about 16 degrees).
const TURN_MIN: f32 = 0.14;
/// A face keeps at least so much of its breadth (about 37 degrees). A photograph that is turned until the landmark network sees the
/// nose moved by [`TURN_MIN`] has lost more.
const BREADTH_MIN: f32 = 0.80;
/// Lips further apart than this are open.
const OPEN_MIN: f32 = 0.38;
/// And at least so much further than when looking straight.
const OPENED_MIN: f32 = 0.18;

fn middle(points: &[Point]) -> Point {
    let n = points.len() as f32;
    let (x, y) = points.iter().fold((0.0, 0.0), |(x, y), p| (x + p.0, y + p.1));
    (x / n, y / n)
}

impl Measures {
    /// Of a face's landmarks.
    pub fn of(face: &Face) -> Self {
        let p = &face.landmarks;
        let (right, left) = (middle(&p[36..42]), middle(&p[42..48]));
        let (dx, dy) = (left.0 - right.0, left.1 - right.1);
        let eyes = dx.hypot(dy).max(f32::EPSILON);
        let between = ((left.0 + right.0) / 2.0, (left.1 + right.1) / 2.0);
        let along = |q: Point| ((q.0 - between.0) * dx + (q.1 - between.1) * dy) / (eyes * eyes);
        let below = |q: Point| ((q.1 - between.1) * dx - (q.0 - between.0) * dy) / (eyes * eyes);
        let nose = below(p[33]).max(0.05);
        Self {
            yaw: along(p[30]),
            mouth: (below(p[66]) - below(p[62])) / nose,
            breadth: 1.0 / nose,
            eyes,
            tilt: dy.atan2(dx).to_degrees(),
        }
    }

    /// Whether the head is held as asked, where `before` is the same person looking straight.
    pub fn shows(&self, pose: Pose, before: &Self) -> bool {
        let turned = |by: f32| by >= TURN_MIN && self.breadth >= before.breadth * BREADTH_MIN;
        match pose {
            Pose::Straight => self.yaw.abs() <= STRAIGHT_MAX && self.mouth < OPEN_MIN,
            Pose::TurnLeft => turned(self.yaw - before.yaw),
            Pose::TurnRight => turned(before.yaw - self.yaw),
            Pose::OpenMouth => {
                self.yaw.abs() <= STRAIGHT_MAX + 0.05
                    && self.mouth >= OPEN_MIN
                    && self.mouth - before.mouth >= OPENED_MIN
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A head of 68 points in space (eye distance 1, x to the person's left as the camera sees it, y down, z towards the camera): only
    /// the points that are measured matter.
    fn head(open: f32) -> Vec<[f32; 3]> {
        let mut p = vec![[0.0, 0.8, 0.0]; 68];
        for (i, point) in p[36..42].iter_mut().enumerate() {
            *point = [-0.5 + 0.2 * (i as f32 - 2.5) / 2.5, 0.0, 0.0];
        }
        for (i, point) in p[42..48].iter_mut().enumerate() {
            *point = [0.5 + 0.2 * (i as f32 - 2.5) / 2.5, 0.0, 0.0];
        }
        p[30] = [0.0, 0.6, 0.5];
        p[33] = [0.0, 0.75, 0.3];
        p[62] = [0.0, 1.0, 0.2];
        p[66] = [0.0, 1.0 + open, 0.2];
        p
    }

    /// Seen by a camera `far` eye distances away after a turn about the upright axis by `degrees`, 80 pixels between the eyes, then
    /// tilted in the picture.
    fn seen(points: &[[f32; 3]], degrees: f32, tilt: f32, far: f32) -> Measures {
        let (sin, cos) = degrees.to_radians().sin_cos();
        let (tilt_sin, tilt_cos) = tilt.to_radians().sin_cos();
        let landmarks = points.iter().map(|[x, y, z]| {
            let (x, z) = (x * cos + z * sin, z * cos - x * sin);
            let scale = 80.0 * far / (far - z);
            let (x, y) = (x * scale, y * scale);
            (300.0 + x * tilt_cos - y * tilt_sin, 200.0 + x * tilt_sin + y * tilt_cos)
        });
        Measures::of(&Face { score: 1.0, area: [0.0; 4], landmarks: landmarks.collect() })
    }

    fn flat(mut points: Vec<[f32; 3]>) -> Vec<[f32; 3]> {
        points.iter_mut().for_each(|p| p[2] = 0.0);
        points
    }

    #[test]
    fn a_turning_head_shows_it_at_any_tilt_and_distance() {
        for far in [6.0, 10.0, 30.0] {
            for tilt in [-20.0, 0.0, 20.0] {
                let before = seen(&head(0.0), 0.0, tilt, far);
                assert!(before.shows(Pose::Straight, &before), "{before:?}");
                let (left, right) = (seen(&head(0.0), 22.0, tilt, far), seen(&head(0.0), -22.0, tilt, far));
                assert!(
                    left.shows(Pose::TurnLeft, &before) && !left.shows(Pose::TurnRight, &before),
                    "{left:?}"
                );
                assert!(
                    right.shows(Pose::TurnRight, &before) && !right.shows(Pose::Straight, &before),
                    "{right:?}"
                );
                let open = seen(&head(0.4), 2.0, tilt, far);
                assert!(
                    open.shows(Pose::OpenMouth, &before) && !before.shows(Pose::OpenMouth, &before),
                    "{open:?}"
                );
            }
        }
    }

    #[test]
    fn a_turning_photograph_shows_no_turn() {
        for far in [6.0, 10.0, 30.0] {
            let before = seen(&flat(head(0.0)), 0.0, 0.0, far);
            for degrees in [-60.0, -45.0, -30.0, -15.0, 15.0, 30.0, 45.0, 60.0] {
                let turned = seen(&flat(head(0.0)), degrees, 0.0, far);
                let shown = turned.shows(Pose::TurnLeft, &before) || turned.shows(Pose::TurnRight, &before);
                assert!(!shown, "{degrees} degrees at {far}: {turned:?}");
            }
        }
    }
}
