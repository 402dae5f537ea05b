use std::collections::HashMap;
