//! The terminal interface: what a run does, what it costs, what waits for a person, and the keys that answer.
//!
//! [`screen`] is the state, without I/O; [`view`] draws it; [`feed`] reads the store about five times a second, for a run of
//! this process as for any other; [`show`] joins them with a terminal. What a person decides goes through the same
//! functions of the store as the commands do.

mod choose;
mod facts;
mod feed;
mod held;
mod orders;
mod prompt;
mod question;
mod screen;
mod story;
pub(crate) mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod view;

pub(crate) use choose::{Choice, choose};
pub(crate) use held::Held;

use crate::context::Context;
use crate::exit::Problem;
use crate::output::Tone;
use crossterm::event::Event;
use feed::Feed;
use screen::{Order, Screen};
use std::time::Duration;
use terminal::Terminal;
use tipstaff_model::RunId;
use tipstaff_runner::Cancel;
use tipstaff_store::Topic;

/// The shortest time between two looks at the store.
const SHORTEST: Duration = Duration::from_millis(50);
/// The longest one, with the shortest, in milliseconds: another process tells nothing where the database can't.
const LOOK_MS: u64 = 150;

/// Why the screen was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// A person left it.
    Wanted,
    /// The terminal is gone.
    Gone,
}

/// Whether the screen is wanted: at a terminal, unless told otherwise.
pub(crate) fn wanted(context: &Context, (screen, plain): (bool, bool)) -> anyhow::Result<bool> {
    let possible = terminal::is_there() && !context.output.json;
    if screen && !possible {
        return Err(Problem::usage(
            "no-terminal",
            "--tui needs a terminal at standard input and output, and no --json; leave it out for lines",
        ));
    }
    Ok(possible && !plain && (screen || !context.env.dumb_terminal))
}

/// Shows a run until it is left. `own` is the handle of a run that this process carries out.
pub(crate) async fn show(context: &Context, run: RunId, own: Option<&Cancel>) -> anyhow::Result<Left> {
    let mut feed = Feed::new(run);
    let facts = feed.facts(context, own.is_some()).await?;
    let (snapshot, events) = feed.next(context).await?;
    let mut screen = Screen::new(facts, snapshot);
    let mut more = Feed::is_full(&events);
    events.iter().for_each(|event| screen.event(event));
    let mut news = context.store.subscribe(Topic::Run);
    let mut terminal = Terminal::open(!context.env.no_color)?;
    end_by_signal(own.is_some());
    loop {
        let drawn = terminal.draw(|area, buffer, colour| {
            screen.fit(area.width, area.height);
            view::render(&screen, area, buffer, colour);
        });
        // A panic elsewhere gave the terminal back: it is not drawn on any more.
        if drawn.is_err() || !terminal::is_taken() {
            return Ok(Left::Gone);
        }
        let mut order = None;
        let look = async {
            if !more {
                tokio::time::sleep(SHORTEST).await;
                news.wait(LOOK_MS).await;
            }
        };
        tokio::select! {
            event = terminal.event() => match event {
                None => return Ok(Left::Gone),
                Some(Event::Key(key)) if key.is_press() => order = screen.key(key, context.clock.wall_ms()),
                Some(Event::Paste(text)) => screen.paste(&text),
                Some(_) => {}
            },
            () = look => {}
        }
        match order {
            Some(Order::Leave) => return Ok(Left::Wanted),
            Some(Order::Interrupt) => match own {
                None => return Ok(Left::Wanted),
                Some(cancel) if cancel.is_cancelled() => {
                    terminal::give_back();
                    std::process::exit(130);
                }
                Some(cancel) => {
                    cancel.cancel();
                    screen.say(
                        Tone::Warn,
                        "ending the run and keeping its work; Ctrl-C once more leaves at once",
                    );
                }
            },
            Some(order) => orders::carry_out(context, &mut screen, order).await,
            None => {}
        }
        match feed.next(context).await {
            Ok((snapshot, events)) => {
                more = Feed::is_full(&events);
                events.iter().for_each(|event| screen.event(event));
                screen.take(snapshot);
            }
            // The run goes on; the next look may find the store again.
            Err(error) => {
                more = false;
                screen.say(Tone::Bad, format!("the store does not answer: {error:#}"));
            }
        }
    }
}

/// Carries work out beside the screen of its run. When the screen is left, the work goes on, told line by line.
pub(crate) async fn beside<T>(
    context: &Context,
    run: RunId,
    (cancel, held): (&Cancel, &Held),
    work: impl Future<Output = T>,
) -> T {
    tokio::pin!(work);
    let done = tokio::select! {
        done = &mut work => Some(done),
        left = show(context, run, Some(cancel)) => {
            match left {
                Ok(Left::Wanted) => {}
                Ok(Left::Gone) => crate::output::leave_alone(),
                Err(error) => {
                    context.output.warn(&format!("the screen can't be shown: {error:#}; the run goes on"));
                }
            }
            None
        }
    };
    held.release();
    match done {
        Some(done) => done,
        None => work.await,
    }
}

/// A signal ends this process as it does without a screen; only that the terminal is given back first. Where hanging up was
/// ignored, it stays ignored. The process of a run has its own answer to each of them: it ends the run.
fn end_by_signal(own: bool) {
    use tokio::signal::unix::SignalKind;
    if own {
        return;
    }
    if !hang_up_is_ignored() {
        ends_by(SignalKind::hangup(), 129);
    }
    ends_by(SignalKind::terminate(), 143);
    ends_by(SignalKind::interrupt(), 130);
}

fn ends_by(kind: tokio::signal::unix::SignalKind, code: i32) {
    let Ok(mut signal) = tokio::signal::unix::signal(kind) else { return };
    tokio::spawn(async move {
        if signal.recv().await.is_some() {
            terminal::give_back();
            std::process::exit(code);
        }
    });
}

/// Whether whoever started this process wants it to outlive its terminal.
pub(crate) fn hang_up_is_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // SIGHUP is the first signal.
    mask.is_some_and(|mask| mask & 1 == 1)
}
