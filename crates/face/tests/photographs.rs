//! The shipped networks on photographs, which are not part of this repository: skipped where `../shared/faces` is absent.
//!
//! A head that turns and a mouth that opens are drawn by bending a photograph, as no video of a person may be kept for tests: they
//! show that the way through the networks works, not how often a real person is sent away.

mod actor;

use actor::{Actor, bent, photographs, png, read};
use face::*;
use model::Digest;

struct Booth {
    desk: FaceDesk,
    party: u8,
}

impl Booth {
    /// Answers a fresh challenge with what `show` gives for each pose and its position.
    fn try_with(
        &mut self,
        document: &[u8],
        show: impl Fn(Pose, u8) -> Picture,
    ) -> Result<Verdict, FaceRefusal> {
        self.party += 1;
        let bound = Digest([self.party; 32]);
        let challenge = self.desk.challenge(bound, 0).unwrap();
        let frames: Vec<_> = challenge
            .poses
            .into_iter()
            .enumerate()
            // no two frames of any try are the same
            .map(|(i, pose)| Frame {
                bytes: png(&show(pose, self.party.wrapping_mul(8).wrapping_add(i as u8))),
                at_ms: 1500 * i as u64,
            })
            .collect();
        self.desk.judge(&challenge.id, bound, document, &frames, 1)
    }
}

#[test]
fn one_person_is_near_and_another_far() {
    let Some(folder) = photographs() else { return };
    let model = Networks::shipped().unwrap();
    let names = ["p1_a", "p1_b", "p2_a", "p2_b", "p2_c", "p2_partial"];
    for (i, one) in names.iter().enumerate() {
        for other in &names[i + 1..] {
            let found = compare(&model, read(&folder, one), read(&folder, other)).unwrap();
            let same = one[..2] == other[..2];
            println!("{one} {other} {:.3}", found.distance);
            assert!(
                if same { found.distance < 0.45 } else { found.distance > 0.70 },
                "{one} {other} {}",
                found.distance
            );
        }
    }
    // those of a camera that lies on its side are found all the same
    for name in ["live", "spoof_1", "spoof_2"] {
        assert_eq!(upright(&model, read(&folder, name)).unwrap().2, 1, "{name}");
    }
}

#[test]
fn a_living_head_passes_and_pictures_of_it_do_not() {
    let Some(folder) = photographs() else { return };
    let model = Networks::shipped().unwrap();
    let (actor, other) = (Actor::new(&model, &folder, "p2_a"), Actor::new(&model, &folder, "p1_b"));
    let document = std::fs::read(folder.join("p2_c.jpg")).unwrap();
    let others_document = std::fs::read(folder.join("p1_b.jpg")).unwrap();
    let desk = FaceDesk::new(Box::new(model), None, 0.45);
    let mut booth = Booth { desk, party: 0 };

    // the bent photograph does what it is asked, in whichever order
    for _ in 0..3 {
        let verdict = booth.try_with(&document, |pose, noise| actor.shows(pose, noise)).unwrap();
        assert!(verdict.distance < verdict.threshold, "{verdict:?}");
    }
    // not before somebody else's document
    let refused = booth.try_with(&others_document, |pose, noise| actor.shows(pose, noise)).unwrap_err();
    assert_eq!(refused.why, Why::NotTheDocument);
    // a photograph held still, printed or on a screen
    let refused = booth.try_with(&document, |_, noise| actor.shows(Pose::Straight, noise)).unwrap_err();
    assert!(matches!(refused, FaceRefusal { why: Why::Pose(_), frame: Some(1) }), "{refused:?}");
    // turned and bent before the camera, at every angle
    for degrees in [20.0, 30.0, 38.0, 50.0] {
        let refused = booth
            .try_with(&document, |pose, noise| match pose {
                Pose::TurnLeft => actor.turned_flat(degrees, noise),
                Pose::TurnRight => actor.turned_flat(-degrees, noise),
                pose => actor.shows(pose, noise),
            })
            .unwrap_err();
        println!("flat at {degrees} degrees: {refused:?}");
        assert!(refused.frame.is_some() && refused.why != Why::NotTheDocument, "{degrees}: {refused:?}");
    }
    // and it is not only the moving edge of the paper that tells: no turn is seen on it
    let model = Networks::shipped().unwrap();
    for degrees in (-60..=60).step_by(10).filter(|d| *d != 0) {
        for actor in [&actor, &other] {
            let before = Measures::of(&actor.face);
            let turned = actor.turned_flat(degrees as f32, 1);
            for face in model.faces(&turned).unwrap().iter().take(1) {
                let seen = Measures::of(face);
                let turn = seen.shows(Pose::TurnLeft, &before) || seen.shows(Pose::TurnRight, &before);
                assert!(!turn, "{degrees} degrees: {seen:?} after {before:?}");
            }
        }
    }
    // the poses of another order: a film of an earlier answer
    let refused = booth
        .try_with(&document, |pose, noise| match pose {
            Pose::TurnLeft => actor.shows(Pose::TurnRight, noise),
            Pose::TurnRight => actor.shows(Pose::OpenMouth, noise),
            Pose::OpenMouth => actor.shows(Pose::TurnLeft, noise),
            Pose::Straight => actor.shows(pose, noise),
        })
        .unwrap_err();
    assert!(matches!(refused, FaceRefusal { why: Why::Pose(_), .. }), "{refused:?}");
    // somebody steps in half way, who could do the poses, from another place or the same
    let swapped = booth.try_with(&document, |pose, noise| match pose {
        Pose::Straight => actor.shows(pose, noise),
        pose => other.shows(pose, noise),
    });
    assert!(matches!(swapped.unwrap_err().why, Why::Scene | Why::OnePerson | Why::Pose(_)));
    // one frame over and over
    let refused = booth.try_with(&document, |_, _| actor.shows(Pose::Straight, 0)).unwrap_err();
    assert_eq!(refused.why, Why::Replayed);
    // a wall
    let wall = |_: Pose, noise: u8| bent(&actor.picture, noise, |x, _| (x / 40.0, 3.0));
    assert_eq!(booth.try_with(&document, wall).unwrap_err().why, Why::NoFace);
    // too dark
    let dark = |_: Pose, noise: u8| {
        let p = bent(&actor.picture, noise, |x, y| (x, y));
        let (w, h) = (p.width(), p.height());
        let rgb = (0..w * h).flat_map(|i| p.pixel((i % w) as isize, (i / w) as isize).map(|v| v / 6));
        Picture::of_rgb(w, h, rgb.collect()).unwrap()
    };
    assert!(matches!(booth.try_with(&document, dark).unwrap_err().why, Why::Light | Why::NoFace));
}

#[test]
fn calibration_says_how_many_people_it_takes() {
    let Some(folder) = photographs() else { return };
    let model = Networks::shipped().unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["p1_a", "p1_b", "p2_a", "p2_b", "p2_c"] {
        std::fs::copy(folder.join(format!("{name}.jpg")), dir.path().join(format!("{name}.jpg"))).unwrap();
    }
    std::fs::write(dir.path().join("p3_x.jpg"), "no picture").unwrap();
    let found = Photograph::find(dir.path()).unwrap();
    let mut done = 0;
    let report = calibrate(&model, &found, 0.001, |n| done = n).unwrap();
    assert_eq!(
        (done, report.people, report.photographs, report.same_pairs, report.different_pairs),
        (6, 2, 5, 4, 1)
    );
    assert_eq!((report.people_needed, report.left_out.len()), (78, 1));
    assert!(report.chosen.is_none(), "two people show nothing about one in a thousand");
    // one pair bounds nothing under 0.95
    let lenient = calibrate(&model, &found, 0.96, |_| ()).unwrap().chosen.unwrap();
    assert!(lenient.threshold > 0.6 && lenient.false_reject == 0.0, "{lenient:?}");
}
