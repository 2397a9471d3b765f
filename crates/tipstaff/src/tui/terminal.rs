//! The terminal itself: its own screen, keys without echo, and everything as it was afterwards.
//!
//! Promise: whatever ends this process in an orderly way, a panic and a signal that it takes included, the terminal is
//! given back first. Only what every terminal since the VT100 knows is used, besides the alternate screen and bracketed
//! paste, which are ignored where they are unknown: no mouse, no title, no clipboard.

use crate::output;
use crossterm::event::{self, DisableBracketedPaste, EnableBracketedPaste, Event};
use crossterm::{cursor, execute, terminal};
use ratatui::backend::CrosstermBackend;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use std::io::{self, IsTerminal, Stdout, Write};
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::sync::mpsc;

/// Whether the terminal is ours now.
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();
/// How long the thread that reads keys waits before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(50);
/// Keys that wait to be taken.
const MOST_WAITING: usize = 256;

/// Whether a person sits at both ends.
pub(crate) fn is_there() -> bool {
    io::stdin().is_terminal() && io::stdout().is_terminal()
}

/// A terminal that was taken; dropping it gives it back.
pub(crate) struct Terminal {
    /// Never dropped: it would show the cursor, which [`give_back`] has done, and panic where the terminal is gone.
    inner: ManuallyDrop<ratatui::Terminal<CrosstermBackend<Stdout>>>,
    colour: bool,
    stop: Arc<AtomicBool>,
    events: mpsc::Receiver<Event>,
}

impl Terminal {
    /// Takes the terminal.
    pub(crate) fn open(colour: bool) -> io::Result<Self> {
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        terminal::enable_raw_mode()?;
        TAKEN.store(true, Ordering::SeqCst);
        output::hold();
        let mut out = io::stdout();
        let taken = execute!(out, terminal::EnterAlternateScreen, EnableBracketedPaste, cursor::Hide)
            .and_then(|()| ratatui::Terminal::new(CrosstermBackend::new(out)));
        let inner = ManuallyDrop::new(taken.inspect_err(|_| give_back())?);
        let stop = Arc::new(AtomicBool::new(false));
        let (sender, events) = mpsc::channel(MOST_WAITING);
        let stopped = Arc::clone(&stop);
        std::thread::spawn(move || read(&stopped, &sender));
        Ok(Self { inner, colour, stop, events })
    }

    /// Draws at the terminal's size.
    pub(crate) fn draw(&mut self, draw: impl FnOnce(Rect, &mut Buffer, bool)) -> io::Result<()> {
        let colour = self.colour;
        self.inner.draw(|frame| draw(frame.area(), frame.buffer_mut(), colour))?;
        Ok(())
    }

    /// The next key, paste or change of size; `None` when the terminal is gone.
    pub(crate) async fn event(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        give_back();
    }
}

/// Gives the terminal back, if it was taken. Errors are nobody's: there is nobody to tell.
pub(crate) fn give_back() {
    if !TAKEN.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _gone = execute!(out, DisableBracketedPaste, terminal::LeaveAlternateScreen, cursor::Show);
    let _gone = terminal::disable_raw_mode();
    let _gone = out.flush();
    output::release();
}

/// Whether the terminal is still ours.
pub(crate) fn is_taken() -> bool {
    TAKEN.load(Ordering::SeqCst)
}

fn read(stop: &AtomicBool, sender: &mpsc::Sender<Event>) {
    while !stop.load(Ordering::SeqCst) {
        let news = match event::poll(LOOK) {
            Ok(false) => continue,
            Ok(true) => event::read(),
            Err(error) => Err(error),
        };
        let Ok(news) = news else { return };
        if stop.load(Ordering::SeqCst) || sender.blocking_send(news).is_err() {
            return;
        }
    }
}
