
function done(summary)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  io.write(string.format("counted %d %d %d %d\n", summary.requests, errors.status, broken, summary.duration))
end
