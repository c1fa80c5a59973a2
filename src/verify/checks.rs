//! The checks, made from outside: each tells commands under ids of its own and looks at nothing but the answers.

use super::payload::Payload;
use super::promises::{Check, Finding};
use super::subject::Subject;
use endstate_events::{
    Action, Command, CommandKind, Direction, EffectId, Forward, Json, ReplyTo, SagaId, Slot, Topic, Verdict,
};
use endstate_saga::definition::Shape;
use futures_util::future::join_all;

/// Commands of one effect that are told at the same time.
const AT_ONCE: usize = 8;

/// Why a check is not passed.
enum Miss {
    Failed(String),
    /// It cannot be made with what is known.
    Skipped(String),
}

type Checked = Result<(), Miss>;

/// One action under test.
pub(crate) struct Trial<'a> {
    pub(crate) participant: &'a str,
    pub(crate) name: &'a str,
    pub(crate) action: &'a Action,
    /// Payload that it does.
    pub(crate) with: Payload,
    /// Another one.
    pub(crate) other: Option<Payload>,
    /// One that it refuses.
    pub(crate) refused: Option<Payload>,
    /// The action that it is about (`of`), and that one's payload.
    pub(crate) of: Option<(&'a str, &'a Action, Payload)>,
    pub(crate) subject: &'a dyn Subject,
}

/// Commands of one saga that nobody has seen before.
struct Fresh {
    saga: SagaId,
    n: u32,
    of: Option<Forward>,
}

impl Trial<'_> {
    /// Makes every check that applies.
    pub(crate) async fn run(&self, wanted: impl Fn(Check) -> bool) -> Vec<Finding> {
        let mut findings = Vec::new();
        for check in Check::ALL.into_iter().filter(|check| wanted(*check)) {
            let (result, said) = match self.check(check).await {
                Ok(()) => ("ok", None),
                Err(Miss::Failed(said)) => ("failed", Some(said)),
                Err(Miss::Skipped(why)) => ("skipped", Some(why)),
            };
            let mend = (result == "failed").then(|| check.mend());
            findings.push(Finding {
                action: self.name.to_owned(),
                check,
                expected: check.expects(),
                result,
                said,
                mend,
            });
        }
        findings
    }

    async fn check(&self, check: Check) -> Checked {
        match check {
            Check::Done => self.done().await.map(drop),
            Check::Twice => self.twice().await,
            Check::Concurrent => self.concurrent().await,
            Check::AskedBefore => self.asked_before().await,
            Check::AskedAfter => self.asked_after().await,
            Check::Conflict => self.conflict().await,
            Check::Refused => self.refused().await,
            Check::UndoneTwice => self.undone_twice().await,
            Check::ToldAfterUndo => self.told_after_undo().await,
            Check::UndoneFirst => self.undone_first().await,
            Check::OldRelease => self.old_release().await,
        }
    }

    /// Does a command that nobody has seen.
    async fn done(&self) -> Result<(Fresh, Command, Verdict), Miss> {
        let fresh = self.fresh().await?;
        let command = self.command(&fresh, &self.with, 0);
        let verdict = self.subject.tell(&command).await;
        let Verdict::Done { data } = &verdict else { return Err(failed("the command", &verdict)) };
        let schema = &self.action.reply;
        let shape = if schema.is_null() { None } else { Shape::compile(schema).ok() };
        if let Some(misfit) = shape.and_then(|shape| shape.misfits(data).into_iter().next()) {
            let path = misfit.place();
            return Err(Miss::Failed(format!("its data breaks the schema at {path}: {}", misfit.reason)));
        }
        Ok((fresh, command, verdict))
    }

    async fn twice(&self) -> Checked {
        let (_, command, first) = self.done().await?;
        self.same("told again", &command, &first).await?;
        self.same("told a third time", &command, &first).await
    }

    async fn concurrent(&self) -> Checked {
        let fresh = self.fresh().await?;
        let command = self.command(&fresh, &self.with, 0);
        let said = join_all((0..AT_ONCE).map(|_| self.subject.tell(&command))).await;
        let last = self.subject.tell(&command).await;
        if !matches!(last, Verdict::Done { .. }) {
            return Err(failed("told once more", &last));
        }
        match said.iter().find(|verdict| !matches!(verdict, Verdict::Unknown { .. }) && **verdict != last) {
            Some(other) => Err(Miss::Failed(format!("one said {}, another {}", show(other), show(&last)))),
            None => Ok(()),
        }
    }

    async fn asked_before(&self) -> Checked {
        let fresh = self.fresh().await?;
        let command = self.command(&fresh, &self.with, 0);
        for about in ["asked before", "asked before, again"] {
            let verdict = self.subject.tell(&asking(&command)).await;
            if verdict != Verdict::NeverSeen {
                return Err(failed(about, &verdict));
            }
        }
        match self.subject.tell(&command).await {
            Verdict::Done { .. } => Ok(()),
            other => Err(failed("told after the question", &other)),
        }
    }

    async fn asked_after(&self) -> Checked {
        let (_, command, first) = self.done().await?;
        self.same("asked", &asking(&command), &first).await?;
        let Some(undo) = self.undo(&command, &first) else { return Ok(()) };
        let undone = self.subject.tell(&undo).await;
        if !matches!(undone, Verdict::Done { .. }) {
            return Err(failed("the undo", &undone));
        }
        self.same("asked about the undo", &asking(&undo), &undone).await
    }

    async fn conflict(&self) -> Checked {
        let other = self.other.as_ref();
        let none = || Miss::Skipped("the payload cannot be varied: give --other ACTION=JSON".to_owned());
        let other = other.ok_or_else(none)?;
        let (fresh, command, first) = self.done().await?;
        let changed = Command { with: other.filled(fresh.n), ..command.clone() };
        let said = self.subject.tell(&changed).await;
        match said {
            Verdict::Unknown { .. } => {}
            Verdict::Done { .. } | Verdict::Refused { .. } | Verdict::NeverSeen => {
                return Err(failed("told with another body", &said));
            }
        }
        self.same("asked afterwards", &asking(&command), &first).await?;
        self.same("told the first body again", &command, &first).await
    }

    async fn refused(&self) -> Checked {
        let none = || Miss::Skipped("no payload is known that it refuses: give --refuse ACTION=JSON".to_owned());
        let with = self.refused.as_ref().ok_or_else(none)?;
        let fresh = self.fresh().await?;
        let command = self.command(&fresh, with, 0);
        let first = self.subject.tell(&command).await;
        let Verdict::Refused { code, .. } = &first else { return Err(failed("the command", &first)) };
        if !self.action.refusals.contains(code) {
            return Err(Miss::Failed(format!("it refuses with `{code}`, which the catalogue does not list")));
        }
        self.same("told again", &command, &first).await?;
        self.same("asked", &asking(&command), &first).await?;
        let Some(undo) = self.undo(&command, &first) else { return Ok(()) };
        match self.subject.tell(&undo).await {
            Verdict::Done { .. } => Ok(()),
            other => Err(failed("the undo of what it refused", &other)),
        }
    }

    async fn undone_twice(&self) -> Checked {
        let (_, command, first) = self.done().await?;
        let undo = self.undo(&command, &first).ok_or_else(no_undo)?;
        let undone = self.subject.tell(&undo).await;
        if !matches!(undone, Verdict::Done { .. }) {
            return Err(failed("the undo", &undone));
        }
        self.same("undone again", &undo, &undone).await
    }

    async fn told_after_undo(&self) -> Checked {
        let (_, command, first) = self.done().await?;
        let undo = self.undo(&command, &first).ok_or_else(no_undo)?;
        self.subject.tell(&undo).await;
        self.same("told after its undo", &command, &first).await?;
        self.same("asked after its undo", &asking(&command), &first).await
    }

    async fn undone_first(&self) -> Checked {
        let fresh = self.fresh().await?;
        let command = self.command(&fresh, &self.with, 0);
        let undo = self.undo(&command, &Verdict::NeverSeen).ok_or_else(no_undo)?;
        match self.subject.tell(&undo).await {
            Verdict::Done { .. } => {}
            other => return Err(failed("the undo that came first", &other)),
        }
        for (when, late) in
            [("the late command", command.clone()), ("again", command.clone()), ("asked", asking(&command))]
        {
            let verdict = self.subject.tell(&late).await;
            if !matches!(verdict, Verdict::Refused { .. }) {
                return Err(failed(when, &verdict));
            }
        }
        match self.subject.tell(&undo).await {
            Verdict::Done { .. } => Ok(()),
            other => Err(failed("the undo again", &other)),
        }
    }

    async fn old_release(&self) -> Checked {
        let (fresh, command, first) = self.done().await?;
        let undo = self.undo(&command, &first).ok_or_else(no_undo)?;
        self.subject.tell(&undo).await;
        // An operator has the step done once more: another round, another effect.
        let again = self.command(&fresh, &self.with, 1);
        let second = self.subject.tell(&again).await;
        if !matches!(second, Verdict::Done { .. }) {
            return Err(failed("the next round", &second));
        }
        self.subject.tell(&undo).await;
        self.same("asked about the next round", &asking(&again), &second).await?;
        let undo = self.undo(&again, &second).ok_or_else(no_undo)?;
        match self.subject.tell(&undo).await {
            Verdict::Done { .. } => Ok(()),
            other => Err(failed("the undo of the next round", &other)),
        }
    }

    async fn same(&self, when: &str, command: &Command, first: &Verdict) -> Checked {
        let verdict = self.subject.tell(command).await;
        let same = match (&verdict, first) {
            // Words for people may differ.
            (Verdict::Refused { code, .. }, Verdict::Refused { code: before, .. }) => code == before,
            (verdict, first) => verdict == first,
        };
        if same { Ok(()) } else { Err(Miss::Failed(format!("{when}: {} instead of {}", show(&verdict), show(first)))) }
    }

    /// A saga of its own, and what the action is about, done.
    async fn fresh(&self) -> Result<Fresh, Miss> {
        let n = rand::random::<u32>();
        let key = format!("verify-{n}");
        let now_ms =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |now| now.as_millis());
        let saga = SagaId::mint(i64::try_from(now_ms).unwrap_or(0), Slot::of(&key), rand::random());
        let mut fresh = Fresh { saga, n, of: None };
        if let Some((name, action, with)) = &self.of {
            let command = self.told(&fresh, (name, action), with, 0);
            let verdict = self.subject.tell(&command).await;
            let Verdict::Done { data } = verdict else { return Err(failed(&format!("`{name}`, before it"), &verdict)) };
            fresh.of = Some(Forward { effect_id: command.effect_id, with: command.with, reply: data });
        }
        Ok(fresh)
    }

    fn command(&self, fresh: &Fresh, with: &Payload, round: u8) -> Command {
        let of = fresh.of.clone();
        let command = self.told(fresh, (self.name, self.action), with, round);
        // What is about another effect lives where that one lives.
        let key = match &self.of {
            Some((_, action, with)) => key_of(action, &with.filled(fresh.n), fresh),
            None => command.key,
        };
        Command { of, key, ..command }
    }

    fn told(&self, fresh: &Fresh, (name, action): (&str, &Action), with: &Payload, round: u8) -> Command {
        let with = with.filled(fresh.n);
        let key = key_of(action, &with, fresh);
        let step = format!("verify_{name}");
        Command {
            effect_id: EffectId { saga: fresh.saga, step, item: String::new(), direction: Direction::Do, round },
            kind: CommandKind::Do,
            participant: self.participant.to_owned(),
            action: name.to_owned(),
            number: format!("verify-{}", fresh.n),
            definition: "verify".to_owned(),
            definition_version: 0,
            key,
            with,
            of: None,
            reply_to: ReplyTo { topic: Topic::Progress, partition: 0 },
        }
    }

    fn undo(&self, command: &Command, verdict: &Verdict) -> Option<Command> {
        let reply = if let Verdict::Done { data } = verdict { data.clone() } else { Json::Null };
        let Command { effect_id, with, .. } = command;
        Some(Command {
            effect_id: EffectId { direction: Direction::Undo, ..effect_id.clone() },
            kind: CommandKind::Undo,
            action: self.action.undo.clone()?,
            of: Some(Forward { effect_id: effect_id.clone(), with: with.clone(), reply }),
            ..command.clone()
        })
    }
}

fn key_of(action: &Action, with: &Json, fresh: &Fresh) -> String {
    let field = action.key.as_ref().and_then(|key| with.get(key)).and_then(Json::as_str);
    field.map_or_else(|| format!("verify-{}", fresh.n), str::to_owned)
}

fn asking(command: &Command) -> Command {
    Command { kind: CommandKind::Ask, ..command.clone() }
}

fn no_undo() -> Miss {
    Miss::Skipped("the catalogue names no `undo` for it".to_owned())
}

fn failed(when: &str, verdict: &Verdict) -> Miss {
    Miss::Failed(format!("{when}: {}", show(verdict)))
}

/// A verdict in short.
fn show(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Done { data } => format!("done {data}"),
        Verdict::Refused { code, detail } if detail.is_empty() => format!("refused {code}"),
        Verdict::Refused { code, detail } => format!("refused {code} ({detail})"),
        Verdict::Unknown { reason, .. } => format!("unknown ({reason})"),
        Verdict::NeverSeen => "never_seen".to_owned(),
    }
}
