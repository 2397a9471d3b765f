use super::*;
use serde_json::json;

fn said(events: &[Event]) -> Conversation {
    Conversation { events: events.to_vec(), ..Conversation::default() }
}

fn step_after(events: &[Event], counters: &Counters) -> Option<usize> {
    match next("", &said(events), counters) {
        Next::Step(number, _) => Some(number),
        _ => None,
    }
}

#[test]
fn the_history_says_which_step_is_next() {
    let counters = Counters::default();
    let user = Event::User(script_prompt(
        "go",
        json!([{"shell": "a"}, {"status": 500, "times": 0}, {"shell": "b"}, {"text": "t"}, {"text": "u"}]),
    ));
    assert_eq!(step_after(std::slice::from_ref(&user), &counters), Some(0));
    assert_eq!(step_after(&[user.clone(), Event::Call], &counters), Some(2));
    assert_eq!(step_after(&[user.clone(), Event::Call, user.clone(), Event::Call], &counters), Some(3));
    let more = Event::User("go on".to_owned());
    let history = [user.clone(), Event::Call, Event::Call, Event::Said, more.clone()];
    assert_eq!(step_after(&history, &counters), Some(4));
    let history = [user, Event::Call, Event::Call, Event::Said, more, Event::Said];
    assert_eq!(next("", &said(&history), &counters), Next::Finished(5));
}

#[test]
fn a_new_script_begins_anew_and_no_script_is_none() {
    let counters = Counters::default();
    let first = Event::User(script_prompt("go", json!([{"shell": "a"}, {"shell": "b"}])));
    let second = Event::User(script_prompt("go", json!([{"shell": "c"}, {"shell": "d"}])));
    assert_eq!(step_after(&[first.clone(), Event::Call, second], &counters), Some(0));
    assert_eq!(next("", &said(&[Event::User("hello".to_owned())]), &counters), Next::None);
    assert_eq!(
        next("", &said(&[first, Event::Call, Event::Call, Event::Call]), &counters),
        Next::Finished(2)
    );
}

#[test]
fn a_trouble_happens_as_often_as_it_says() {
    let counters = Counters::default();
    let user = [Event::User(script_prompt("go", json!([{"status": 429, "times": 2}, {"text": "t"}])))];
    let steps: Vec<_> = (0..4).map(|_| step_after(&user, &counters)).collect();
    assert_eq!(steps, [Some(0), Some(0), Some(1), Some(1)]);
}

#[test]
fn a_prompt_in_the_quotes_of_opencode_is_understood() {
    let prompt = script_prompt("say \"hi\"", json!([{"write": {"path": "a", "content": "\"x\"\n]]\\"}}]));
    let quoted = format!("\"{}\"", prompt.replace('"', "\\\""));
    let step = |text: &str| match next("", &said(&[Event::User(text.to_owned())]), &Counters::default()) {
        Next::Step(_, step) => step,
        other => panic!("{other:?}"),
    };
    assert_eq!(step(&quoted), step(&prompt));
}

#[test]
fn manners_go_before_or_beside() {
    let script = Script::read(json!({"steps": [
        {"sleep": 5}, {"slow": 2, "think": "hm"}, {"text": "t", "slow": 3}, {"usage": {"input": 7}}]}))
    .unwrap();
    let [first, second] = script.steps.as_slice() else { panic!("{script:?}") };
    assert_eq!((first.manner.sleep, first.manner.slow, first.manner.think.as_deref()), (5, 3, Some("hm")));
    assert_eq!(second.action, Action::Say(FINISHED.to_owned()));
    assert_eq!(second.manner.usage.unwrap().input, 7);
}

#[test]
fn a_wrong_script_is_an_error() {
    for wrong in [
        json!({"steps": [{"text": "a", "shell": "b"}]}),
        json!({"steps": [{"txt": "a"}]}),
        json!({"steps": [{"status": 200}]}),
        json!({"steps": [{"text": "a", "retry_after": 2}]}),
        json!({"step": []}),
    ] {
        assert!(Script::read(wrong.clone()).is_err(), "{wrong}");
    }
    let text = Event::User("[[fake no json]]".to_owned());
    assert!(matches!(next("", &said(&[text]), &Counters::default()), Next::Wrong(_)));
}
