//! Minimums by the clock: which one is in force at a moment.

use mobula_spec::ScheduledMinimum;

const MINUTES_PER_DAY: i64 = 24 * 60;

/// 1 January 1970 was a Thursday; 0 is Monday.
const WEEKDAY_OF_THE_EPOCH: i64 = 3;

/// The entries of a config, and their clock.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Schedule {
    pub entries: Vec<ScheduledMinimum>,
    /// Ahead of UTC.
    pub utc_offset_minutes: i32,
}

// === impl Schedule ===

impl Schedule {
    /// The largest minimum that is in force; 0: none is.
    pub fn minimum_at(&self, unix_s: f64) -> u32 {
        let minute = (unix_s / 60.0).floor() as i64 + i64::from(self.utc_offset_minutes);
        let entries = self.entries.iter();
        entries
            .filter(|entry| is_in_force(entry, minute))
            .map(|entry| entry.min_replicas)
            .max()
            .unwrap_or(0)
    }
}

/// An entry that ends where it begins or before ends on the next day, so yesterday's counts too.
fn is_in_force(entry: &ScheduledMinimum, minute: i64) -> bool {
    let (from, to) = (i64::from(entry.from), i64::from(entry.to));
    let lasts = (to - from).rem_euclid(MINUTES_PER_DAY);
    // "00:00" to "24:00" is the whole day.
    let lasts = if lasts == 0 { MINUTES_PER_DAY } else { lasts };
    let today = minute.div_euclid(MINUTES_PER_DAY);
    [today - 1, today].into_iter().any(|day| {
        let weekday = (day + WEEKDAY_OF_THE_EPOCH).rem_euclid(7);
        let since = minute - (day * MINUTES_PER_DAY + from);
        entry.days.iter().any(|named| i64::from(*named) == weekday) && (0..lasts).contains(&since)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(days: &[u8], from: u16, to: u16, min_replicas: u32) -> ScheduledMinimum {
        ScheduledMinimum {
            days: days.to_vec(),
            from,
            to,
            min_replicas,
        }
    }

    /// Minutes after midnight, UTC, of Monday 5 January 1970, and of later days.
    fn at(day: i64, hours: i64, minutes: i64) -> f64 {
        ((4 + day) * 24 * 60 + hours * 60 + minutes) as f64 * 60.0
    }

    #[test]
    fn an_entry_holds_from_its_first_minute_to_the_one_before_its_last() {
        let schedule = Schedule {
            entries: vec![entry(&[0, 1], 480, 1080, 4), entry(&[0], 600, 660, 9)],
            utc_offset_minutes: 0,
        };
        let at = |day, hours, minutes| schedule.minimum_at(at(day, hours, minutes));
        assert_eq!(at(0, 7, 59), 0);
        assert_eq!(at(0, 8, 0), 4);
        assert_eq!(at(0, 10, 30), 9);
        assert_eq!(at(1, 10, 30), 4);
        assert_eq!(at(0, 17, 59), 4);
        assert_eq!(at(0, 18, 0), 0);
        assert_eq!(at(2, 12, 0), 0);
        assert_eq!(at(7, 12, 0), 4);
    }

    #[test]
    fn a_night_belongs_to_the_day_on_which_it_begins_and_the_clock_may_be_elsewhere() {
        let mut schedule = Schedule {
            entries: vec![entry(&[6], 22 * 60, 6 * 60, 2)],
            utc_offset_minutes: 0,
        };
        // Sunday 22:00 to Monday 06:00.
        assert_eq!(schedule.minimum_at(at(6, 23, 0)), 2);
        assert_eq!(schedule.minimum_at(at(7, 5, 59)), 2);
        assert_eq!(schedule.minimum_at(at(7, 6, 0)), 0);
        assert_eq!(schedule.minimum_at(at(7, 23, 0)), 0);
        schedule.utc_offset_minutes = 120;
        assert_eq!(schedule.minimum_at(at(6, 20, 0)), 2);
        assert_eq!(schedule.minimum_at(at(7, 4, 0)), 0);
        let whole_day = Schedule {
            entries: vec![entry(&[0], 0, 1440, 3)],
            utc_offset_minutes: 0,
        };
        assert_eq!(whole_day.minimum_at(at(0, 0, 0)), 3);
        assert_eq!(whole_day.minimum_at(at(0, 23, 59)), 3);
        assert_eq!(whole_day.minimum_at(at(1, 0, 0)), 0);
    }
}
