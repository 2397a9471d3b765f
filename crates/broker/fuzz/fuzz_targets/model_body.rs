//! Bodies of model requests: what is passed on says the same as what was judged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tipstaff_broker::parse::meter::Api;
use tipstaff_broker::parse::model_body::ModelBody;

fuzz_target!(|bytes: &[u8]| {
    for api in [Api::Messages, Api::Responses, Api::ChatCompletions, Api::GenerateContent] {
        let path = (api == Api::GenerateContent).then_some("model-of-the-path");
        if let Ok(mut body) = ModelBody::parse(api, bytes, path) {
            body.set_most_output(7, false);
            body.ask_for_usage();
            let written = body.write();
            let again = ModelBody::parse(api, &written, path).expect("what is written can be read");
            assert_eq!(again.model(), body.model());
            assert_eq!(again.most_output(), Ok(Some(7)));
        }
    }
});
