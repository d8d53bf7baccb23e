-- Argo CD's view of an ImageBuild and of a BuildCachePrune. Put this text into the ConfigMap argocd-cm as
-- resource.customizations.health.imagewright.dev_ImageBuild and, for the other kind, as
-- resource.customizations.health.imagewright.dev_BuildCachePrune.
local function condition(kind)
  for _, one in ipairs((obj.status or {}).conditions or {}) do
    if one.type == kind then
      return one
    end
  end
  return nil
end

local health = {}
local observed = (obj.status or {}).observedGeneration
local succeeded = condition("Succeeded")

if succeeded == nil or observed == nil or observed ~= obj.metadata.generation then
  -- What the status says is of an older spec, or of none at all.
  health.status = "Progressing"
  health.message = "The operator has not looked at this spec yet."
  return health
end

health.message = (succeeded.reason or "") .. ": " .. (succeeded.message or "")
if succeeded.status == "True" then
  health.status = "Healthy"
elseif succeeded.status == "False" then
  health.status = "Degraded"
elseif succeeded.reason == "Scheduled" then
  -- A schedule that waits for its first time is as it should be.
  health.status = "Healthy"
elseif succeeded.reason == "Suspended" then
  health.status = "Suspended"
else
  health.status = "Progressing"
end
return health
